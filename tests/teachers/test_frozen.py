from __future__ import annotations

import copy
import math
from types import SimpleNamespace

import pytest
import torch
from torch.utils.data import Dataset

from distilpose import create_model
from distilpose.data.codec import encode_heatmaps
from distilpose.errors import DistilPoseError
from distilpose.models import save_model
from distilpose.modules import FrozenTeacher, check_teacher, load_teacher
from distilpose.outputs import PoseBatch, TeacherOutput
from distilpose.skeleton import COCO, Skeleton
from distilpose.teachers.heatmaps import peak_confidence, resample, resize_heatmaps


def batch_of(images, joints=17):
    """A batch of these crops, every joint labelled."""
    count = len(images)
    return PoseBatch(
        images,
        torch.rand(count, joints, 2),
        torch.ones(count, joints),
        torch.ones(count, joints),
        *([torch.zeros(count)] * 5),
    )


class Persons(Dataset):
    """Persons with random joints, which the first row of the image holds for `Reader`."""

    def __init__(self, count=40, joints=17):
        draw = torch.Generator().manual_seed(0)
        self.keypoints = torch.rand(count, joints, 2, generator=draw) * 0.8 + 0.1

    def __len__(self):
        return len(self.keypoints)

    def __getitem__(self, index):
        image = torch.zeros(3, 64, 48)
        image[:2, 0, :17] = self.keypoints[index].T
        ones, scalar = torch.ones(17), torch.tensor(0)
        return PoseBatch(
            image, self.keypoints[index], ones, ones, torch.eye(2, 3), scalar, scalar, torch.ones(4), ones[0]
        )


class Reader(torch.nn.Module):
    """A network that reads the joints from the image, and scales its maps or moves them to the centre."""

    input_size, heatmap_size, name, skeleton, head = (64, 48), (16, 12), "reader", COCO, None

    def __init__(self, scale=1.0, known=1.0):
        super().__init__()
        self.scale, self.known = scale, known
        self.anchor = torch.nn.Parameter(torch.zeros(()))

    def forward(self, images):
        keypoints = images[:, :2, 0, :17].transpose(1, 2)
        keypoints = self.known * keypoints + (1 - self.known) * 0.5
        maps, _ = encode_heatmaps(keypoints, torch.ones(keypoints.shape[:2]), (16, 12), 1.0)
        return TeacherOutput(self.scale * maps + self.anchor, images, images)


def test_a_module_does_not_own_its_teacher():
    teacher = FrozenTeacher(create_model("teacher_xs"))
    holder = torch.nn.Module()
    holder.teacher = teacher
    assert list(holder.parameters()) == []
    assert holder.state_dict() == {}
    assert not teacher.model.training
    assert not any(parameter.requires_grad for parameter in teacher.model.parameters())
    assert copy.deepcopy(holder).teacher is teacher


def test_output_has_no_gradient_and_can_be_used_in_autograd():
    teacher = FrozenTeacher(create_model("teacher_xs"))
    images = torch.randn(2, 3, 64, 48, requires_grad=True)
    output = teacher(batch_of(images))
    assert not any(field.requires_grad for field in output if field is not None)
    # inference-mode tensors could not be saved for a backward pass
    weight = torch.ones_like(output.heatmaps, requires_grad=True)
    (weight * output.heatmaps).square().sum().backward()
    assert weight.grad is not None


@pytest.mark.parametrize(("precision", "close"), [("32", 1e-6), ("bf16", 0.1)])
def test_precision(precision, close):
    model = create_model("teacher_xs").eval()
    images = torch.randn(2, 3, 64, 48)
    expected = model(images).heatmaps
    with torch.autocast("cpu", dtype=torch.bfloat16):
        heatmaps = FrozenTeacher(model, precision=precision)(batch_of(images)).heatmaps
    difference = (heatmaps.float() - expected).abs().max().item()
    assert difference <= close * expected.abs().max().item()
    assert (difference > 0) == (precision == "bf16")


def test_output_has_the_students_joints():
    """The student has three of the teacher's joints in another order, and one that the teacher does not know."""
    student = create_model("student_xs", skeleton=Skeleton.from_names(["LeftKnee", "tail", "nose", "right_hip"]))
    model = create_model("teacher_xs")
    teacher, plain = FrozenTeacher(model), FrozenTeacher(model)
    batch = batch_of(torch.randn(2, 3, 64, 48), joints=4)
    expected = plain(batch)
    assert expected.trust is None
    teacher.set_student(student)
    output = teacher(batch)
    for joint, name in ((0, "left_knee"), (2, "nose"), (3, "right_hip")):
        index = COCO.names.index(name)
        torch.testing.assert_close(output.heatmaps[:, joint], expected.heatmaps[:, index])
        torch.testing.assert_close(output.keypoint_tokens[:, joint], expected.keypoint_tokens[:, index])
    assert output.heatmaps[:, 1].abs().max() == 0
    assert output.trust.tolist() == [[1, 0, 1, 1]] * 2
    unlabelled = teacher(batch._replace(weights=torch.tensor([[1.0, 1, 0, 0]] * 2)))
    assert unlabelled.trust.tolist() == [[1, 0, 0, 0]] * 2
    with pytest.raises(DistilPoseError, match=r"tail.*beak"):
        teacher.set_student(create_model("student_xs", skeleton=Skeleton.from_names(["tail", "beak"])))


def test_another_crop_size_needs_resize():
    small = create_model("student_xs", input_size=(32, 24), patch_size=(2, 2))
    with pytest.raises(DistilPoseError, match=r"teacher\.resize=true"):
        FrozenTeacher(create_model("teacher_xs")).set_student(small)
    teacher = FrozenTeacher(create_model("teacher_xs"), resize=True)
    teacher.set_student(small)
    assert teacher(batch_of(torch.randn(2, 3, 32, 24))).heatmaps.shape == (2, 17, 8, 6)


def test_trust_of_persons_without_labels_is_the_confidence():
    model = create_model("teacher_xs")
    teacher = FrozenTeacher(model)
    batch = batch_of(torch.randn(2, 3, 64, 48))
    batch = batch._replace(
        labelled=torch.tensor([[0.0], [1.0]]).expand(2, 17), weights=torch.tensor([[0.0], [1.0]]).expand(2, 17)
    )
    assert teacher(batch).trust is None
    teacher.prepare(SimpleNamespace(unlabelled=True))
    output = teacher(batch)
    torch.testing.assert_close(output.trust[0], output.heatmaps[0].amax(dim=(-2, -1)).clamp(0, 1))
    assert output.trust[1].tolist() == [1] * 17


def test_confidence_of_a_softmax_is_the_share_in_its_peak():
    keypoints = torch.tensor([[[0.5, 0.5], [0.412, 0.533], [0.2, 0.8]]])
    maps = {sigma: encode_heatmaps(keypoints, torch.ones(1, 3), (64, 48), sigma)[0] for sigma in (0.7, 1, 2, 3, 6)}
    for sigma in (0.7, 1, 2, 3):  # it is 1 for a Gaussian of any width up to 3 and any position within a cell
        torch.testing.assert_close(peak_confidence(maps[sigma], softmax=True), torch.ones(1, 3), rtol=0, atol=0.02)
    # at the peak a Gaussian of 6 cells looks like one of 3, which has a quarter of its mass
    torch.testing.assert_close(
        peak_confidence(maps[6], softmax=True)[:, :2], torch.full((1, 2), 0.25), rtol=0, atol=0.02
    )
    # 70 % of the mass at one position, 30 % at another
    two = 0.7 * maps[2][:, :1] + 0.3 * maps[2][:, 2:]
    assert peak_confidence(two / two.max(), softmax=True).item() == pytest.approx(0.7, abs=0.01)
    # in a corner or for a flat map it stays at most 1
    corner, _ = encode_heatmaps(torch.zeros(1, 1, 2), torch.ones(1, 1), (16, 12), 1.0)
    assert peak_confidence(corner, softmax=True).item() == 1
    assert peak_confidence(torch.ones(1, 1, 64, 48), softmax=True).item() == pytest.approx(2 * math.pi * 9 / (64 * 48))
    torch.testing.assert_close(
        peak_confidence(0.4 * maps[1], softmax=False), torch.full((1, 3), 0.4), rtol=0, atol=0.06
    )


def test_reducing_keeps_peaks_and_their_positions():
    keypoints = torch.tensor([[[0.30, 0.61], [0.55, 0.43], [0.02, 0.98]]])
    large, _ = encode_heatmaps(keypoints, torch.ones(1, 3), (64, 48), 1.0)
    small = resize_heatmaps(large, (16, 12))
    torch.testing.assert_close(small.amax(dim=(-2, -1)), large.amax(dim=(-2, -1)))
    cell = small.flatten(2).argmax(-1)
    expected = (keypoints * torch.tensor([12.0, 16.0])).round().long().clamp(max=torch.tensor([11, 15]))
    assert cell.tolist() == (expected[..., 1] * 12 + expected[..., 0]).tolist()


def test_resampling_keeps_a_joints_position():
    """A Gaussian drawn at one size and resampled equals the Gaussian drawn at the other size."""
    keypoints = torch.tensor([[[0.3, 0.6], [0.55, 0.42]]])
    large, _ = encode_heatmaps(keypoints, torch.ones(1, 2), (64, 48), 8.0)
    small, _ = encode_heatmaps(keypoints, torch.ones(1, 2), (16, 12), 2.0)
    torch.testing.assert_close(resample(large, (16, 12)), small, rtol=0, atol=1e-5)
    # the error of linear interpolation of a Gaussian of two cells is (1 - exp(-1 / 8)) / 2 at its peak
    torch.testing.assert_close(resample(small, (64, 48))[..., :60, :45], large[..., :60, :45], rtol=0, atol=0.07)
    assert resample(small, (16, 12)) is small


def test_move():
    teacher = FrozenTeacher(create_model("teacher_xs"))
    teacher.move(lambda tensor: tensor.double() if tensor.is_floating_point() else tensor)
    assert next(teacher.model.parameters()).dtype == torch.float64


def test_without_a_checkpoint_the_error_lists_ways_to_get_one():
    with pytest.raises(DistilPoseError, match=r"distilpose\.train model=teacher_.*loss=regression"):
        load_teacher(None)


def test_a_student_is_no_teacher(tmp_path):
    save_model(create_model("student_xs"), tmp_path / "student.safetensors")
    with pytest.raises(DistilPoseError, match=r"student\.safetensors.*student_xs.*loss=regression"):
        load_teacher(tmp_path / "student.safetensors")


def test_a_good_teacher_passes_with_its_figures():
    figures = check_teacher(FrozenTeacher(Reader()), Persons())
    assert figures["accuracy"] == 1.0
    assert figures["chance"] < 0.1
    assert figures["highest"] == pytest.approx(1, abs=0.05)


def test_chance_is_the_mean_pose():
    """5 % of 64 pixels is a disc of radius 3.2 in an 0.8 x 64 by 0.8 x 48 rectangle of uniform joints."""
    figures = check_teacher(FrozenTeacher(Reader()), Persons(count=1000), persons=1000)
    assert figures["chance"] == pytest.approx(math.pi * 3.2**2 / (0.8 * 64 * 0.8 * 48), rel=0.15)


@pytest.mark.parametrize(
    ("teacher", "reason"),
    [
        (Reader(scale=5), " 0 to "),
        (Reader(scale=-1.5), " -1"),
        (Reader(scale=0), "median peak of 0"),
        (Reader(known=0), "near chance"),
        (Reader(scale=float("nan")), "expected"),
    ],
)
def test_a_broken_teacher_is_an_error(teacher, reason):
    with pytest.raises(DistilPoseError, match=reason) as error:
        check_teacher(FrozenTeacher(teacher), Persons())
    assert "teacher.check=false" in str(error.value)


@pytest.mark.parametrize("number", [0, 20, 39])
def test_one_map_that_is_no_number_is_an_error(number):
    """As of a network in 16 bits that overflows for some crops."""

    class Overflows(Reader):
        def forward(self, images):
            output = super().forward(images)
            output.heatmaps[(images == Persons()[number].image).all(dim=(1, 2, 3)), 3] = float("nan")
            return output

    with pytest.raises(DistilPoseError, match="nan"):
        check_teacher(FrozenTeacher(Overflows()), Persons())


def test_no_label_at_a_joint_that_the_teacher_knows():
    persons = Persons()
    unlabelled = [persons[index]._replace(weights=torch.zeros(17)) for index in range(10)]
    with pytest.raises(DistilPoseError, match=r"None of 10 validation persons.*teacher\.check=false"):
        check_teacher(FrozenTeacher(Reader()), unlabelled)
