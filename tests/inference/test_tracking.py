from __future__ import annotations

import numpy as np
import pytest

from distilpose.inference.tracking import Tracker, box_iou, boxes_of_poses
from distilpose.skeleton import COCO, Skeleton

SHAPE = np.random.default_rng(0).uniform(0, 1, (17, 2))


def person(x, y=20.0, width=40.0, height=90.0):
    """A box and the pose in it."""
    box = np.array([x, y, width, height])
    return box, box[:2] + box[2:] * SHAPE


def follow(tracker, frames):
    """Identities by frame of persons given as x positions, in the order given."""
    identities = []
    for number, places in enumerate(frames):
        people = [person(x) for x in places]
        boxes = np.array([box for box, _ in people]).reshape(-1, 4)
        poses = np.array([pose for _, pose in people]).reshape(-1, 17, 2)
        identities.append(tracker(number / 25, poses, np.ones((len(people), 17)), boxes)[0].tolist())
    return identities


def test_identities_do_not_depend_on_the_order_of_the_persons():
    assert follow(Tracker(COCO), [[0, 100], [103, 2], [5, 106]]) == [[1, 2], [2, 1], [1, 2]]


def test_the_sum_of_similarities_decides():
    """A greedy method would give the first person the nearer track 2, and leave track 1 to the second."""
    assert follow(Tracker(COCO), [[0, 20], [11, 29]]) == [[1, 2], [1, 2]]


def test_rejected_pairs_do_not_influence_the_others(monkeypatch):
    """The largest sum is 0.14 + 0.14, both below the threshold; 0.20 alone is a pair."""
    tracker = Tracker(COCO, least=0.15)
    assert follow(tracker, [[0, 300]]) == [[1, 2]]
    monkeypatch.setattr(tracker, "_similarity", lambda *_: np.array([[0.20, 0.14], [0.14, 0.0]]))
    assert follow(tracker, [[0, 300]]) == [[1, 3]]


def test_a_person_keeps_its_identity_within_the_patience():
    assert follow(Tracker(COCO, patience=2), [[0], [], [], [0]])[-1] == [1]
    assert follow(Tracker(COCO, patience=2), [[0], [], [], [], [0]])[-1] == [2]
    assert follow(Tracker(COCO, patience=0), [[0], [0]])[-1] == [1]


def test_frames_without_persons_and_new_persons():
    assert follow(Tracker(COCO), [[], [0], [300]]) == [[], [1], [2]]


def test_poses_distinguish_persons_in_one_box():
    other = 1 - SHAPE
    tracker = Tracker(COCO)
    box = np.array([[0.0, 0.0, 100.0, 100.0]] * 2)
    first = np.stack([100 * SHAPE, 100 * other])
    assert tracker(0.0, first, np.ones((2, 17)), box)[0].tolist() == [1, 2]
    assert tracker(0.1, first[::-1], np.ones((2, 17)), box)[0].tolist() == [2, 1]


def test_each_track_is_smoothed_by_itself():
    tracker = Tracker(COCO, smoothing={"beta": 0.0})
    box, pose = person(0.0)
    away, other = person(200.0)
    tracker(0.0, np.stack([pose, other]), np.ones((2, 17)), np.stack([box, away]))
    numbers, shown = tracker(0.04, np.stack([other, pose + 2]), np.ones((2, 17)), np.stack([away, box]))
    assert numbers.tolist() == [2, 1]
    assert shown[0] == pytest.approx(other)
    assert (shown[1] > pose).all()
    assert (shown[1] < pose + 1.9).all()


def test_a_skeleton_without_sigmas_and_poses_that_are_not_finite():
    tracker = Tracker(Skeleton.from_names(["snout", "tail"]))
    box = np.array([[0.0, 0.0, 10.0, 10.0]])
    for _ in range(2):
        numbers, _ = tracker(0.0, np.full((1, 2, 2), np.nan), np.ones((1, 2)), box)
    assert numbers.tolist() == [1]


def test_intersection_over_union_of_boxes():
    boxes = np.array([[0, 0, 10, 10], [5, 0, 10, 10], [20, 20, 1, 1]], dtype=float)
    assert box_iou(boxes, boxes[:1]).ravel().tolist() == pytest.approx([1, 50 / 150, 0])


def test_boxes_around_confident_joints():
    poses = np.array([[[10, 10], [30, 50], [20, 20], [900, 900]], [[1, 1], [2, 2], [3, 3], [4, 4]]], dtype=float)
    scores = np.array([[1, 1, 1, 0.1], [1, 1, 0, 0]])
    assert boxes_of_poses(poses, scores, (60, 100)).tolist() == [[8, 6, 24, 48]]
    assert boxes_of_poses(poses[:1], scores[:1], (40, 25)).tolist() == [[8, 6, 17, 34]]
    assert boxes_of_poses(poses[:0], scores[:0], (9, 9)).shape == (0, 4)
