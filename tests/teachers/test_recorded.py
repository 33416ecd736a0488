from __future__ import annotations

import copy
import dataclasses
import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.utils.data import default_collate

from distilpose import create_model
from distilpose.data import CocoKeypoints, PoseAugmentation
from distilpose.data.codec import decode_heatmaps
from distilpose.errors import DistilPoseError
from distilpose.modules import DistillationModule, RecordedTeacher, load_blazepose, load_recorded
from distilpose.outputs import PoseBatch
from distilpose.skeleton import COCO, Skeleton
from distilpose.teachers import blazepose as blazepose_module
from distilpose.teachers.base import SourceOutput
from distilpose.teachers.recorder import find_recording, record, recording_accuracy
from distilpose.teachers.recording_file import Recording, image_keys

SIGMA = 1.8
# COCO's joints in another order and style, without the ears, and with one that COCO lacks
STYLED = Skeleton.from_names(
    ["Neck", *("".join(part.title() for part in name.split("_")) for name in reversed(COCO.names) if "ear" not in name)]
)


class Painter:
    """A source that returns Gaussians at the true joints, in another view for each person."""

    name, skeleton, map_size = "painter", STYLED, (56, 48)

    def __init__(self, dataset):
        people = dataset.instances
        joints = STYLED.matching(dataset.skeleton)
        self.truth = {
            tuple(box): keypoints[[j or 0 for j in joints]]
            for box, keypoints in zip(people.boxes, people.keypoints, strict=True)
        }
        self.about = {"name": self.name}
        self.recorded = []  # boxes of the persons so far

    def __call__(self, images, boxes):
        self.recorded += [tuple(box) for box in boxes]
        warps = np.stack([self._view(box) for box in boxes])
        joints = np.stack([self.truth[tuple(box)] for box in boxes]).astype(np.float64)
        cells = joints @ warps[:, :, :2].transpose(0, 2, 1) + warps[:, None, :, 2]
        y, x = np.mgrid[: self.map_size[0], : self.map_size[1]]
        distance = (x - cells[..., 0, None, None]) ** 2 + (y - cells[..., 1, None, None]) ** 2
        heatmaps = np.exp(-distance / (2 * SIGMA**2)).astype(np.float32)
        return SourceOutput(heatmaps, warps, np.float32(0.75) * (heatmaps.max((2, 3)) > 0.5))

    def _view(self, box):
        """A view that contains the person, rotated by an angle that depends on the box."""
        angle = 7 * box[0]
        scale = 0.6 * min(self.map_size) / np.hypot(*box[2:])
        turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        centre = np.array([self.map_size[1], self.map_size[0]]) / 2
        return np.c_[turn, centre - turn @ (box[:2] + box[2:] / 2)]


def persons(root, input_size=(64, 48), train=False, **options):
    return CocoKeypoints(
        root / "annotations" / "train.json", root / "train", input_size=input_size, train=train, **options
    )


def crops(dataset):
    return PoseBatch(*default_collate([dataset[index] for index in range(len(dataset))]))


@pytest.fixture
def recorded(tiny_coco, tmp_path):
    """A folder of persons, and their recording."""
    root = tiny_coco(train=24)
    dataset = persons(root)
    return root, record(Painter(dataset), dataset, tmp_path / "recording")


@pytest.mark.parametrize("input_size", [(64, 48), (256, 192)])
@pytest.mark.parametrize("sigma", [0.0, 1.0, 2.0])
def test_maps_have_each_joint_at_its_position_in_any_view(recorded, input_size, sigma):
    root, recording = recorded
    torch.manual_seed(0)
    dataset = persons(root, input_size, train=True, augmentation=PoseAugmentation(half_body_prob=0.2))
    student = create_model("student_xs", input_size=input_size)
    teacher = RecordedTeacher(recording, sigma=sigma)
    teacher.set_student(student)
    extent = torch.tensor([input_size[1], input_size[0]]) / 4
    border = 3 if input_size == (64, 48) else 8  # decoding smooths, which the border disturbs
    errors, mirrored, widths = [], [], []
    for _ in range(3):
        batch = crops(dataset)
        output = teacher(batch)
        assert output.heatmaps.shape == (len(dataset), 17, *student.heatmap_size)
        assert output.visual_tokens is None is output.keypoint_tokens
        position, peak = decode_heatmaps(output.heatmaps)
        cells = batch.keypoints * extent
        seen = (batch.weights > 0) & (output.trust > 0) & ((cells > border) & (cells < extent - border - 1)).all(-1)
        errors.append(((position * extent - cells).norm(dim=-1))[seen])
        mirrored.append(torch.linalg.det(batch.warp[:, :, :2]) < 0)
        total = output.heatmaps.sum((-2, -1)) / (2 * torch.pi * peak.clamp(min=0.1))
        inner = seen & ((cells > 3 * sigma + 3) & (cells < extent - 3 * sigma - 4)).all(-1)
        widths.append(total.sqrt()[inner])
    errors, mirrored = torch.cat(errors), torch.cat(mirrored)
    assert 0.2 < mirrored.float().mean() < 0.8
    assert len(errors) > 300
    if sigma > 0 or input_size == (256, 192):  # narrower than a cell, a peak does not show its position within the cell
        assert errors.quantile(0.99) < 0.2
    assert errors.max() < 1
    widths = torch.cat(widths)
    if len(widths):
        assert widths.quantile(0.05) > 0.93 * sigma


def test_a_mirrored_view_swaps_left_and_right(recorded):
    root, recording = recorded
    teacher = RecordedTeacher(recording)
    teacher.set_student(create_model("student_xs"))
    batch = crops(persons(root))
    mirror = torch.diag(torch.tensor([-1.0, 1.0, 1.0]))
    mirror[0, 2] = 47
    flat = torch.cat([batch.warp, torch.tensor([0.0, 0, 1]).expand(len(batch.warp), 1, 3)], 1)
    straight, mirrored = teacher(batch), teacher(batch._replace(warp=(mirror @ flat)[:, :2]))
    # crop pixel u goes to 47 - u, cell i to 11.75 - i: compare where the joints are, in pixels
    before, after = (decode_heatmaps(output.heatmaps, 3)[0] * torch.tensor([48, 64]) for output in (straight, mirrored))
    # a peak at the border stays on its cell
    both = (straight.trust > 0) & ((before > 10) & (before < torch.tensor([37, 53]))).all(-1)
    difference = after[:, COCO.flip_order] - torch.stack([47 - before[..., 0], before[..., 1]], -1)
    assert both.sum() > 100
    assert difference[both].abs().max() < 0.5


def test_trust(recorded):
    root, recording = recorded
    teacher = RecordedTeacher(recording)
    teacher.set_student(create_model("student_xs"))
    batch = crops(persons(root))
    output = teacher(batch)
    ears = [index for index, name in enumerate(COCO.names) if "ear" in name]
    assert (output.trust[:, ears] == 0).all()
    assert (output.heatmaps[:, ears] == 0).all()
    others = [index for index in range(17) if index not in ears]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(teacher(batch).heatmaps, output.heatmaps)
    labelled = (batch.weights > 0)[:, others]
    assert (output.trust[:, others][labelled] == 0.75).all()  # the whole person is in the crop
    # shifted by half a crop, joints beyond the right edge have no trust
    shifted = batch.warp + torch.tensor([[0.0, 0, 24], [0, 0, 0]])
    trust = teacher(batch._replace(warp=shifted)).trust
    inside = (batch.keypoints[..., 0] * 48 + 24) <= 47
    assert ((trust[:, others] > 0) == inside[:, others])[labelled].float().mean() > 0.98
    strict = RecordedTeacher(recording, least_trust=0.8)
    strict.set_student(create_model("student_xs"))
    assert (strict(batch).trust == 0).all()


def test_persons_of_other_data(recorded, tiny_coco):
    _, recording = recorded
    teacher = RecordedTeacher(recording)
    teacher.set_student(create_model("student_xs"))
    other = crops(persons(tiny_coco(train=24, seed=1)))  # the same annotation ids
    output = teacher(other)
    assert (output.heatmaps == 0).all()
    assert (output.trust == 0).all()


def test_persons_of_other_images_are_recognised(recorded, tmp_path):
    """The annotation ids and boxes are the same, but the photographs differ."""
    root, recording = recorded
    assert len(recording.missing_persons(persons(root))) == 0
    file = root / "annotations" / "train.json"
    content = json.loads(file.read_text())
    for image in content["images"]:
        (root / "train" / image["file_name"]).rename(root / "train" / f"other {image['file_name']}")
        image["file_name"] = f"other {image['file_name']}"
    file.write_text(json.dumps(content))
    other = persons(root)
    assert len(recording.missing_persons(other)) == len(other)
    assert find_recording(Painter(other), other, tmp_path).name != recording.path.name


def test_images_of_the_same_name_in_other_folders_are_other_images(recorded):
    """Ids, boxes and names are those of the recording, but the photographs are another camera's."""
    root, recording = recorded
    file = root / "annotations" / "train.json"
    content = json.loads(file.read_text())
    (root / "train" / "cam2").mkdir()
    for image in content["images"]:
        (root / "train" / image["file_name"]).rename(root / "train" / "cam2" / image["file_name"])
        image["file_name"] = f"cam2/{image['file_name']}"
    file.write_text(json.dumps(content))
    other = persons(root)
    assert len(recording.missing_persons(other)) == len(other)
    # a recording of an earlier version knows the names only
    about = {key: value for key, value in recording.about.items() if key != "image_keys"}
    old = dataclasses.replace(recording, about=about)
    names = image_keys(other, "name")
    rows = recording.rows(other.instances.annotation_ids, other.instances.boxes)
    stored = np.array(recording.persons)
    stored["image"][rows] = names
    assert len(dataclasses.replace(old, persons=stored).missing_persons(other)) == 0


def test_check_reports_accuracy_and_missing_persons(recorded, tiny_coco):
    root, recording = recorded
    teacher = RecordedTeacher(recording)
    data = type("Data", (), {"train_dataset": lambda self: persons(self.root)})()
    data.root = root
    assert "100.0%" in teacher.check(data)
    data.root = tiny_coco(train=30, seed=2)
    with pytest.raises(DistilPoseError, match=r"lacks \d+.*distilpose\.record"):
        teacher.check(data)


def test_a_recording_near_the_mean_pose_is_an_error(tiny_coco, tmp_path):
    root = tiny_coco(train=6)
    dataset = persons(root)
    recording = record(Painter(dataset), dataset, tmp_path / "shifted")
    shifted = Recording(
        recording.path, recording.about, recording.skeleton, recording.maps, np.array(recording.persons)
    )
    shifted.persons["place"] += 1000
    data = SimpleNamespace(train_dataset=lambda: dataset)
    with pytest.raises(DistilPoseError, match=r"shifted.* 0\.0%.*teacher\.check=false"):
        RecordedTeacher(shifted).check(data)
    assert "0.0%" in RecordedTeacher(shifted, check=False).check(data)


def test_a_recording_is_checked_by_the_box_where_hips_are_never_labelled(tiny_coco, tmp_path):
    root = tiny_coco(train=6)
    content = json.loads((root / "annotations" / "train.json").read_text())
    for person in content["annotations"]:
        person["keypoints"][3 * 11 : 3 * 13] = [0] * 6
        person["num_keypoints"] = sum(v > 0 for v in person["keypoints"][2::3])
    (root / "annotations" / "train.json").write_text(json.dumps(content))
    dataset = persons(root)
    recording = record(Painter(dataset), dataset, tmp_path / "recording")
    accuracy, chance = recording_accuracy(recording, dataset)
    assert (accuracy.value, accuracy.reference) == (1, "0.1 of the box's longer side")
    assert chance.persons == accuracy.persons == len(dataset)
    wrong = Recording(recording.path, recording.about, recording.skeleton, recording.maps, np.array(recording.persons))
    wrong.persons["place"] += 1000
    with pytest.raises(DistilPoseError, match=r"near chance.* 0\.0%"):
        RecordedTeacher(wrong).check(SimpleNamespace(train_dataset=lambda: dataset))


def test_persons_without_labels_are_recorded(tiny_coco, tmp_path):
    root = tiny_coco(train=6)
    content = json.loads((root / "annotations" / "train.json").read_text())
    dataset = persons(root)
    painter = Painter(dataset)
    for person in content["annotations"]:
        person.update(keypoints=[0] * 51, num_keypoints=0)
    (root / "annotations" / "train.json").write_text(json.dumps(content))
    unlabelled = persons(root, unlabelled=True)
    recording = record(painter, unlabelled, tmp_path / "unlabelled")
    assert recording.persons["done"].all()
    assert recording_accuracy(recording, unlabelled) is None
    accuracy, chance = recording_accuracy(recording, dataset)
    assert accuracy.value == 1
    assert chance.persons == accuracy.persons


def test_an_interrupted_recording_is_continued(tiny_coco, tmp_path):
    dataset = persons(tiny_coco(train=12))
    uninterrupted = record(Painter(dataset), dataset, tmp_path / "uninterrupted", batch_size=4)

    class Stopped(Painter):
        def __call__(self, images, boxes):
            if len(self.recorded) == 8:
                raise KeyboardInterrupt
            return super().__call__(images, boxes)

    with pytest.raises(KeyboardInterrupt):
        record(Stopped(dataset), dataset, tmp_path / "cut", batch_size=4)
    with pytest.raises(DistilPoseError, match=r"cut.*interrupted"):
        load_recorded(tmp_path / "cut")
    painter = Painter(dataset)
    assert not find_recording(painter, dataset, tmp_path / "none").exists()
    resumed = record(painter, dataset, tmp_path / "cut", batch_size=4)
    assert len(painter.recorded) == len(dataset) - 8
    assert (resumed.maps == uninterrupted.maps).all()
    assert (resumed.persons == uninterrupted.persons).all()
    assert sorted(path.name for path in tmp_path.glob("cut*")) == ["cut"]


@pytest.mark.parametrize("value", [float("nan"), 1e6])  # too large for 16 bits
def test_maps_that_are_no_numbers_are_not_recorded(value, tiny_coco, tmp_path):
    dataset = persons(tiny_coco(train=12))

    class Diverged(Painter):
        def __call__(self, images, boxes):
            output = super().__call__(images, boxes)
            if len(self.recorded) == 8:
                output.heatmaps[1, 3, 5, 5] = value
            return output

    identity = dataset.instances.annotation_ids[5]
    with pytest.raises(DistilPoseError, match=rf"painter.* 1 of 4 .*{identity}"):
        record(Diverged(dataset), dataset, tmp_path / "recording", batch_size=4)
    painter = Painter(dataset)
    record(painter, dataset, tmp_path / "recording", batch_size=4)
    assert len(painter.recorded) == len(dataset) - 4  # what was recorded before is kept


def test_nothing_is_recorded_twice_or_overwritten(recorded, tiny_coco, tmp_path):
    root, recording = recorded
    dataset = persons(root)
    painter = Painter(dataset)
    assert record(painter, dataset, recording.path).path == recording.path
    assert painter.recorded == []
    other = persons(tiny_coco(train=24, seed=1))
    with pytest.raises(DistilPoseError, match="recording"):
        record(Painter(other), other, recording.path)
    changed = Painter(dataset)
    changed.about = {"name": "painter", "brush": 2}
    with pytest.raises(DistilPoseError, match=r"recording.*another source"):
        record(changed, dataset, recording.path)
    painter.skeleton = Skeleton.from_names(["thumb"])
    with pytest.raises(DistilPoseError, match=r"thumb.*nose"):
        record(painter, dataset, tmp_path / "hands")


def test_a_recording_is_found_for_any_part_of_its_persons(tiny_coco, tmp_path):
    root = tiny_coco(train=12)
    dataset = persons(root)
    painter = Painter(dataset)
    path = find_recording(painter, dataset, tmp_path)
    assert path.name.startswith("painter_train_")
    record(painter, dataset, path)
    assert find_recording(painter, persons(root, limit=5), tmp_path) == path
    assert find_recording(painter, persons(tiny_coco(train=12, seed=5)), tmp_path) != path


def test_blazepose_is_recorded_only_if_it_may_be(tiny_coco, tmp_path, monkeypatch):
    dataset = persons(tiny_coco(train=4))
    data = type("Data", (), {"prepare_data": lambda self: None, "train_dataset": lambda self: dataset})()
    monkeypatch.setattr(blazepose_module, "BlazePose", lambda *_: None)
    monkeypatch.setattr(blazepose_module, "BlazePoseSource", lambda *_: Painter(dataset))
    with pytest.raises(DistilPoseError, match=r"5 persons.*python -m distilpose\.record"):
        load_blazepose(None, data, folder=tmp_path / "recordings", may_record=False)
    assert not (tmp_path / "recordings").exists()
    load_blazepose(None, data, folder=tmp_path / "recordings")
    load_blazepose(None, data, folder=tmp_path / "recordings", may_record=False)


def test_the_error_for_a_missing_recording_names_the_command():
    with pytest.raises(DistilPoseError, match=r"nowhere.*python -m distilpose\.record"):
        load_recorded("nowhere")


def test_a_damaged_recording_is_named(recorded):
    _, recording = recorded
    for content in (b"none", b""):
        (recording.path / "maps.npy").write_bytes(content)
        with pytest.raises(DistilPoseError, match=r"recording.*distilpose\.record"):
            load_recorded(recording.path)


@pytest.mark.parametrize(
    ("name", "content"), [("recording.json", b"{"), ("maps.npy", b"cut"), ("persons.npy", b""), ("persons.npy", None)]
)
def test_a_damaged_unfinished_recording_is_named(recorded, tmp_path, name, content):
    root, recording = recorded
    assert not list(tmp_path.glob(".*"))  # no lock is left
    part = recording.path.rename(tmp_path / "again.part")
    (part / name).unlink()
    if content is not None:
        (part / name).write_bytes(content)
    dataset = persons(root)
    with pytest.raises(DistilPoseError) as error:
        record(Painter(dataset), dataset, tmp_path / "again")
    assert all(fact in str(error.value) for fact in ("again.part", "remove it"))


def test_a_student_learns_from_it(recorded, monkeypatch):
    from functools import partial

    from distilpose.losses import DistillationLoss

    root, recording = recorded
    teacher = RecordedTeacher(recording)
    loss = DistillationLoss(visual_token=0, keypoint_token=0)
    module = DistillationModule(create_model("student_xs"), loss, teacher, optimizer=partial(torch.optim.Adam, lr=1e-3))
    assert copy.deepcopy(module).teacher is teacher
    module.double().float()
    monkeypatch.setattr(module, "log_dict", lambda *args, **kwargs: None)
    torch.manual_seed(0)
    total = module.training_step(crops(persons(root)), 0)
    total.backward()
    assert total > 0
    assert all(parameter.grad is not None for parameter in module.model.parameters())
