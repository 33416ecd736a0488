from __future__ import annotations

import math

import pytest
import torch

from distilpose.evaluation.pck import pck, torso_diagonals
from distilpose.skeleton import COCO, Skeleton

LSP = Skeleton.from_names(
    ["right_ankle", "right_knee", "right_hip", "left_hip", "left_knee", "left_ankle", "right_wrist",
     "right_elbow", "right_shoulder", "left_shoulder", "left_elbow", "left_wrist", "neck", "head_top"]
)  # fmt: skip


def person(skeleton: Skeleton) -> tuple[torch.Tensor, torch.Tensor]:
    """One person whose two torso diagonals measure 100 (left shoulder) and 50 (right shoulder)."""
    target = torch.zeros(1, skeleton.num_keypoints, 2)
    place = {name: index for index, name in enumerate(skeleton.names)}
    target[0, place["left_shoulder"]] = torch.tensor([0.0, 0.0])
    target[0, place["right_hip"]] = torch.tensor([60.0, 80.0])
    target[0, place["right_shoulder"]] = torch.tensor([10.0, 0.0])
    target[0, place["left_hip"]] = torch.tensor([40.0, 40.0])
    return target, torch.ones(1, skeleton.num_keypoints)


BOX = torch.tensor([[0.0, 0.0, 100.0, 200.0]])


@pytest.mark.parametrize("skeleton", [COCO, LSP])
def test_the_limit_is_a_fifth_of_the_torso(skeleton):
    target, labelled = person(skeleton)
    predicted = target.clone()
    predicted[0, 0, 0] += 19.9
    predicted[0, 1, 0] += 20.1
    result = pck(predicted, target, labelled, BOX, skeleton)
    joints = skeleton.num_keypoints
    assert result.value == pytest.approx((joints - 1) / joints)
    assert result.per_joint.tolist() == [1.0, 0.0] + [1.0] * (joints - 2)
    assert (result.reference, result.persons, result.left_out) == ("0.2 of the torso", 1, 0)


def test_the_other_diagonal_replaces_an_unlabelled_one():
    target, labelled = person(LSP)
    labelled[0, LSP.names.index("left_shoulder")] = 0
    predicted = target.clone()
    predicted[0, 0, 0] += 10.1  # above a fifth of 50, below a fifth of 100
    result = pck(predicted, target, labelled, BOX, LSP)
    assert result.per_joint[0] == 0
    assert math.isnan(result.per_joint[LSP.names.index("left_shoulder")])


def test_persons_without_a_torso_are_left_out_and_counted():
    target, labelled = (torch.cat([part, part]) for part in person(LSP))
    labelled[1, [LSP.names.index("left_shoulder"), LSP.names.index("right_shoulder")]] = 0
    predicted = target.clone()
    predicted[1] += 1000
    result = pck(predicted, target, labelled, BOX.expand(2, 4), LSP)
    assert (result.value, result.persons, result.left_out) == (1.0, 1, 1)


def test_unlabelled_joints_do_not_count():
    target, labelled = person(COCO)
    labelled[0, 0] = 0
    predicted = target.clone()
    predicted[0, 0] += 500
    assert pck(predicted, target, labelled, BOX, COCO).value == 1.0


def test_the_box_replaces_the_torso_of_a_skeleton_without_one():
    skeleton = Skeleton.from_names(["nose", "tail", "left_paw"])
    assert torso_diagonals(skeleton) is None
    target = torch.zeros(1, 3, 2)
    predicted = target.clone()
    predicted[0, 0, 1], predicted[0, 1, 1] = 19.9, 20.1
    result = pck(predicted, target, torch.ones(1, 3), BOX, skeleton)
    assert result.value == pytest.approx(2 / 3)
    assert result.reference == "0.1 of the box's longer side"


def test_sides_in_other_spellings():
    names = ["shoulder.L", "shoulder.R", "hip.L", "hip.R"]
    assert torso_diagonals(Skeleton.from_names(names)) == [(0, 3), (1, 2)]
    assert torso_diagonals(Skeleton.from_names(["LeftShoulder", "RightShoulder", "LeftHip", "RightHip"])) == [
        (0, 3),
        (1, 2),
    ]


def test_no_persons():
    result = pck(torch.zeros(0, 14, 2), torch.zeros(0, 14, 2), torch.zeros(0, 14), torch.zeros(0, 4), LSP)
    assert math.isnan(result.value)
