"""Metrics of joints that another tool names: the same as of COCO's names."""

from __future__ import annotations

import pytest
import torch

from distilpose.evaluation.orientation import is_upright
from distilpose.evaluation.pck import joint_pair, pck, torso_diagonals
from distilpose.skeleton import Skeleton

COCO_LIKE = ["left_shoulder", "right_shoulder", "left_hip", "right_hip"]
FOREIGN = [
    ["LShoulder", "RShoulder", "LHip", "RHip"], ["ShoulderLeft", "ShoulderRight", "HipLeft", "HipRight"],
    ["lshoulder", "rshoulder", "lhip", "rhip"], ["Lsho", "Rsho", "LHip", "RHip"],
    ["shoulder.L", "shoulder.R", "hip.L", "hip.R"],
]  # fmt: skip


@pytest.mark.parametrize("names", FOREIGN)
def test_torso_and_orientation(names):
    draw = torch.Generator().manual_seed(0)
    target = torch.rand(20, 4, 2, generator=draw) * 100
    predicted = target + torch.randn(20, 4, 2, generator=draw) * 10
    labelled, bbox = torch.ones(20, 4), torch.tensor([[0.0, 0, 100, 100]]).expand(20, 4)
    truth, other = Skeleton.from_names(COCO_LIKE), Skeleton.from_names(names)
    assert torso_diagonals(other) == torso_diagonals(truth) == [(0, 3), (1, 2)]
    one, two = (pck(predicted, target, labelled, bbox, skeleton) for skeleton in (truth, other))
    assert (one.value, one.reference) == (two.value, two.reference) == (one.value, "0.2 of the torso")
    assert torch.equal(is_upright(target, labelled, truth)[0], is_upright(target, labelled, other)[0])


def test_the_joint_itself_comes_before_longer_names():
    names = [
        "left_hip",
        "right_hip",
        "left_hip_marker",
        "right_hip_marker",
        "left_eye_inner",
        "left_eye",
        "right_eye_inner",
        "right_eye",
    ]
    skeleton = Skeleton.from_names(names)
    assert joint_pair(skeleton, "hip") == [0, 1]
    assert joint_pair(skeleton, "eye") == [5, 7]
    assert joint_pair(Skeleton.from_names(["left_hip_joint", "right_hip_joint"]), "hip") == [0, 1]
    assert joint_pair(Skeleton.from_names(["hip", "left_ankle"]), "hip") is None
