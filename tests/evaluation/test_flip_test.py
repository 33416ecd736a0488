from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from distilpose.data.codec import decode_heatmaps, encode_heatmaps
from distilpose.evaluation.flip_test import predict_crops, predict_crops_each, shift_right
from distilpose.outputs import StudentOutput, TeacherOutput
from distilpose.skeleton import Skeleton

SKELETON = Skeleton.from_names(["nose", "left_eye", "right_eye"])
H, W = 256, 192
SIZE = torch.tensor([float(W), float(H)])
PIXELS = torch.tensor([[[95.0, 40.0], [120.3, 60.7], [61.2, 77.1]]])
SCORES = torch.tensor([[0.1, 0.5, 0.9]])


class Oracle(nn.Module):
    """Predicts the true joints. An image whose first pixel is 1 is not mirrored, any other is."""

    skeleton, scores_trained = SKELETON, True

    def pixels(self, images: Tensor) -> tuple[Tensor, Tensor]:
        if images[0, 0, 0, 0] == 1:
            return PIXELS, SCORES
        turned = PIXELS.clone()
        turned[..., 0] = W - 1 - turned[..., 0]
        return turned[:, SKELETON.flip_order], SCORES[:, SKELETON.flip_order]


class Student(Oracle):
    def forward(self, images):
        pixels, scores = self.pixels(images)
        unused = torch.zeros(1)
        return StudentOutput(pixels / SIZE, scores, unused, unused, unused)


class Teacher(Oracle):
    def forward(self, images):
        pixels, _ = self.pixels(images)
        maps, _ = encode_heatmaps(pixels / SIZE, torch.ones(1, 3), (H // 4, W // 4))
        return TeacherOutput(maps, torch.zeros(1), torch.zeros(1))


@pytest.fixture
def images() -> Tensor:
    image = torch.zeros(1, 3, H, W)
    image[0, 0, 0, 0] = 1
    return image


@pytest.mark.parametrize("flip_test", [True, False])
def test_a_perfect_student_stays_perfect(images, flip_test):
    keypoints, scores = predict_crops(Student(), images, flip_test)
    assert (keypoints * SIZE - PIXELS).abs().max() < 1e-4
    assert torch.allclose(scores, SCORES)


def test_the_released_form_is_half_a_pixel_off_and_mixes_scores(images):
    keypoints, scores = predict_crops(Student(), images, "released")
    error = keypoints * SIZE - PIXELS
    assert torch.allclose(error[..., 0], torch.full((1, 3), 0.5), atol=1e-4)
    assert error[..., 1].abs().max() < 1e-4
    assert torch.allclose(scores, torch.tensor([[0.1, 0.7, 0.7]]))


def test_the_released_form_smooths_small_maps_as_large_ones():
    class Small(nn.Module):
        skeleton = SKELETON

        def forward(self, images):
            maps = torch.rand(2, 3, 16, 12, generator=torch.Generator().manual_seed(0))
            return TeacherOutput(maps, torch.zeros(1), torch.zeros(1))

    images = torch.zeros(2, 3, 64, 48)
    maps = Small()(images).heatmaps
    mirrored = maps[:, SKELETON.flip_order].flip(-1)
    both = (maps + torch.cat([mirrored[..., :1], mirrored[..., :-1]], -1)) / 2
    keypoints, _ = predict_crops(Small(), images, "released")
    assert torch.allclose(keypoints, decode_heatmaps(both, kernel=11)[0], atol=1e-5)
    assert not torch.allclose(keypoints, decode_heatmaps(both)[0], atol=1e-2)


def test_untrained_scores_are_one(images):
    student = Student()
    student.scores_trained = False
    for flip_test in (True, False, "released"):
        assert predict_crops(student, images, flip_test)[1].tolist() == [[1.0, 1.0, 1.0]]


@pytest.mark.parametrize(
    ("flip_test", "bias", "tolerance"), [(False, 0, 0.02), (True, 0, 0.05), ("released", 0.5, 0.05)]
)
def test_a_perfect_teacher(images, flip_test, bias, tolerance):
    keypoints, scores = predict_crops(Teacher(), images, flip_test)
    error = keypoints * SIZE - PIXELS
    assert (error[..., 0] - bias).abs().max() < tolerance
    assert error[..., 1].abs().max() < 0.02
    assert scores.min() > 0.9


def test_the_released_shift_moves_one_cell_and_keeps_the_first_column():
    row = torch.tensor([[[[1.0, 2.0, 3.0, 4.0]]]])
    assert shift_right(row, 1.0).flatten().tolist() == [1.0, 1.0, 2.0, 3.0]
    assert shift_right(row, 0.75).flatten().tolist() == [1.0, 1.25, 2.25, 3.25]


def test_all_kinds_share_the_forward_passes(images):
    calls = []
    student = Student()
    student.register_forward_hook(lambda *_: calls.append(1))
    several = predict_crops_each(student, images, [False, True, "released"])
    assert len(calls) == 2
    for flip_test, (keypoints, scores) in zip([False, True, "released"], several, strict=True):
        single = predict_crops(student, images, flip_test)
        assert torch.equal(keypoints, single[0])
        assert torch.equal(scores, single[1])


def test_a_flip_test_without_pairs_is_logged_once(caplog):
    class Object(Student):
        skeleton = Skeleton.from_names(["handle", "spout", "lid"])

    for flip_tests in ([False], [True], [True, False]):
        predict_crops_each(Object(), torch.ones(1, 3, H, W), flip_tests)
    (message,) = [record.getMessage() for record in caplog.records]
    assert "averages 3 joints with their mirror images and swaps none" in message
    caplog.clear()
    predict_crops_each(Student(), torch.ones(1, 3, H, W), [True])
    assert not caplog.records
