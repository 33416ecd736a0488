"""The articulated body: bones keep their length, joints their limits, left stays left."""

from __future__ import annotations

import numpy as np
import pytest

from distilpose.data.synthetic.figure import (
    FAMILIES,
    LIMITS,
    Body,
    build_figure,
    rotation,
    sample_body,
    sample_pose,
    sample_view,
)

UPRIGHT = dict.fromkeys(LIMITS, 0.0)
BONES = {
    ("shoulder", "elbow"): "upper_arm",
    ("elbow", "wrist"): "forearm",
    ("hip", "knee"): "thigh",
    ("knee", "ankle"): "shin",
}


@pytest.mark.parametrize("seed", range(20))
def test_bones_keep_their_length_in_every_pose(seed):
    rng = np.random.default_rng(seed)
    body = sample_body(rng)
    points = build_figure(body, sample_pose(rng), sample_view(rng)).points
    for (start, end), bone in BONES.items():
        for side in ("left", "right"):
            length = np.linalg.norm(points[f"{side}_{end}"] - points[f"{side}_{start}"])
            assert length == pytest.approx(getattr(body, bone), rel=1e-9)
    assert np.linalg.norm(points["left_hip"] - points["right_hip"]) == pytest.approx(2 * body.hip)
    assert np.linalg.norm(points["left_shoulder"] - points["right_shoulder"]) == pytest.approx(2 * body.shoulder)


def test_poses_stay_within_the_limits_and_reach_far():
    poses = [sample_pose(np.random.default_rng(seed)) for seed in range(400)]
    for name, (low, high) in LIMITS.items():
        angles = np.array([pose[name] for pose in poses])
        assert angles.min() >= low
        assert angles.max() <= high
        assert np.ptp(angles) > 0.3 * (high - low), name


def test_every_family_names_known_angles():
    bare = {name.removeprefix("left_").removeprefix("right_") for name in LIMITS}
    assert all(set(family) <= bare for family in FAMILIES.values())


def test_an_upright_figure_has_head_above_feet_and_a_plausible_height():
    points = build_figure(Body(), UPRIGHT, np.eye(3)).points
    top = points["head"][1] + Body().head
    assert top - points["left_toe"][1] == pytest.approx(1.0, abs=0.06)
    assert points["nose"][1] > points["left_shoulder"][1] > points["left_hip"][1] > points["left_ankle"][1]


@pytest.mark.parametrize(("yaw", "sign"), [(0, 1), (40, 1), (180, -1), (-150, -1)])
def test_left_is_on_the_viewers_right_only_from_the_front(yaw, sign):
    figure = build_figure(Body(), UPRIGHT, rotation("y", yaw))
    assert np.sign(figure.chest[2, 2]) == sign
    for joint in ("eye", "ear", "shoulder", "elbow", "wrist", "hip", "knee", "ankle"):
        assert sign * (figure.points[f"left_{joint}"][0] - figure.points[f"right_{joint}"][0]) > 0
    assert sign * figure.points["nose"][2] > 0


@pytest.mark.parametrize(
    ("angle", "joint", "axis", "sign"),
    [
        ("left_elbow", "left_wrist", 2, 1),
        ("right_knee", "right_ankle", 2, -1),
        ("left_leg_flexion", "left_knee", 2, 1),
        ("left_arm_abduction", "left_elbow", 0, 1),
        ("right_arm_abduction", "right_elbow", 0, -1),
        ("right_leg_abduction", "right_knee", 0, -1),
        ("spine_bend", "nose", 2, 1),
    ],
)
def test_a_joint_bends_the_way_a_body_does(angle, joint, axis, sign):
    straight = build_figure(Body(), UPRIGHT, np.eye(3)).points[joint]
    bent = build_figure(Body(), UPRIGHT | {angle: 45.0}, np.eye(3)).points[joint]
    assert sign * (bent - straight)[axis] > 0.05
