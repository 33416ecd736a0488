from __future__ import annotations

import math

import pytest
import torch
from pycocotools import coco

from distilpose.evaluation.orientation import is_upright, pck_by_orientation
from distilpose.outputs import Predictions
from distilpose.skeleton import COCO, Skeleton

LSP = Skeleton.from_names(["left_hip", "right_hip", "left_shoulder", "right_shoulder", "neck"])
NECKED = Skeleton.from_names(["pelvis.L.hip", "pelvis.R.hip", "upper_neck"])
LEFT_HIP, RIGHT_HIP, LEFT_SHOULDER, RIGHT_SHOULDER, NECK = range(5)


def lean(degrees: float, skeleton: Skeleton = LSP) -> torch.Tensor:
    """One person whose torso is rotated from upright by this angle, clockwise in the image."""
    across, up = math.sin(math.radians(degrees)), math.cos(math.radians(degrees))
    axis, side = torch.tensor([across, -up]), torch.tensor([up, across])
    target = torch.zeros(1, skeleton.num_keypoints, 2)
    for index, name in enumerate(skeleton.names):
        far = 0 if "hip" in name else 100
        away = 0 if "neck" in name else (-20 if "left" in name or ".L" in name else 20)
        target[0, index] = torch.tensor([300.0, 300.0]) + far * axis + away * side
    return target


@pytest.mark.parametrize("skeleton", [LSP, COCO, NECKED])
@pytest.mark.parametrize(("degrees", "expected"), [(0, 1), (44, 1), (-44, 1), (46, 0), (-46, 0), (90, 0), (180, 0)])
def test_within_45_degrees(skeleton, degrees, expected):
    target = lean(degrees, skeleton)
    upright, known = is_upright(target, torch.ones(1, skeleton.num_keypoints), skeleton)
    assert (upright.tolist(), known.tolist()) == ([bool(expected)], [True])


def test_45_degrees_itself_is_upright():
    target = torch.tensor([[[0, 10], [0, 10], [10, 0], [10, 0], [10, 0]]]).float()
    assert is_upright(target, torch.ones(1, 5), LSP)[0].tolist() == [True]


def test_the_neck_replaces_an_unlabelled_shoulder():
    target, labelled = lean(0), torch.ones(1, 5)
    labelled[0, LEFT_SHOULDER] = 0
    target[0, NECK] = target[0, LEFT_HIP] + torch.tensor([100.0, 10.0])
    assert [part.tolist() for part in is_upright(target, labelled, LSP)] == [[False], [True]]
    labelled[0, NECK] = 0
    assert [part.tolist() for part in is_upright(target, labelled, LSP)] == [[False], [False]]


def test_without_hips_the_orientation_is_unknown():
    labelled = torch.ones(2, 5)
    labelled[1, RIGHT_HIP] = 0
    upright, known = is_upright(lean(0).expand(2, -1, -1), labelled, LSP)
    assert (upright.tolist(), known.tolist()) == ([True, False], [True, False])


def test_the_orientation_of_a_torso_without_length_is_unknown():
    assert [part.tolist() for part in is_upright(torch.zeros(1, 5, 2), torch.ones(1, 5), LSP)] == [[False], [False]]


def test_a_skeleton_without_a_torso():
    paws = Skeleton.from_names(["snout", "left_paw", "right_paw"])
    upright, known = is_upright(torch.rand(4, 3, 2), torch.ones(4, 3), paws)
    assert not upright.any()
    assert not known.any()


def predictions(target: torch.Tensor) -> Predictions:
    count = len(target)
    ids = torch.arange(count)
    box = torch.tensor([0.0, 0, 100, 100]).expand(count, 4)
    return Predictions(target, torch.ones(target.shape[:2]), ids, ids, box, torch.ones(count))


def truth(target: torch.Tensor) -> coco.COCO:
    """Annotations whose ids count from 0, every joint labelled."""
    rows = torch.cat([target, torch.full_like(target[..., :1], 2)], -1).flatten(1).tolist()
    file = coco.COCO()
    file.anns = {number: {"keypoints": row} for number, row in enumerate(rows)}
    return file


def test_pck_of_each_orientation():
    target = torch.cat([lean(0), lean(10), lean(90)])
    predicted = target.clone()
    predicted[2] += 1000
    predicted[0, 0] += 1000
    result = pck_by_orientation(predictions(predicted), truth(target), LSP)
    assert (result.upright.value, result.upright.persons) == (pytest.approx(0.9), 2)
    assert (result.other.value, result.other.persons) == (0, 1)
    everyone_up = pck_by_orientation(predictions(target[:2]), truth(target), LSP)
    assert math.isnan(everyone_up.other.value)


def test_no_torso_no_pck_by_orientation():
    paws = Skeleton.from_names(["snout", "left_paw", "right_paw"])
    assert pck_by_orientation(predictions(torch.zeros(1, 3, 2)), "absent.json", paws) is None
