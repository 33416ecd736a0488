"""Sources of boxes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from distilpose.errors import DistilPoseError
from distilpose.inference.box_sources import DetectedBoxes, FileBoxes
from distilpose.inference.boxes import Boxes
from distilpose.inference.images import Frame


class FixedDetector:
    """Returns the same boxes for every image."""

    every = 1

    def __init__(self, boxes, scores):
        self.boxes = Boxes(boxes, scores)

    def __call__(self, image):
        return self.boxes


def test_detections_outside_the_image_are_dropped():
    detections = np.array([[10, 10, 40, 60], [300, 10, 40, 60], [10, 10, 1e-9, 60], [np.nan, 10, 40, 60]])
    source = DetectedBoxes(FixedDetector(detections, np.array([0.9, 0.8, 0.7, 0.6])))
    boxes, scores = source.locate(Frame(0, image=np.zeros((100, 200, 3), np.uint8)))
    assert boxes.tolist() == detections[:1].tolist()
    assert scores.tolist() == [0.9]
    assert len(source.locate(Frame(0, name="unread.jpg")).boxes) == 0


def test_boxes_of_frames_that_are_not_there_are_counted():
    def source(*numbers):
        return FileBoxes({number: Boxes(np.ones((2, 4)), np.ones(2)) for number in numbers})

    assert source(0, 5, 11).unused(12) == ""
    shifted = source(*range(1, 13)).unused(12)
    assert "2 boxes of 1 frames" in shifted
    assert "first_frame=1" in shifted
    assert "shifted" not in source(3, 20).unused(12)
    assert "4 boxes of 2 frames" in source(-1, 5, 99).unused(12)


def test_dropped_detections_are_counted():
    source = DetectedBoxes(FixedDetector(np.array([[10, 10, 40, 60], [300, 10, 40, 60]]), np.ones(2)))
    source.locate(Frame(0, image=np.zeros((100, 200, 3), np.uint8)))
    assert source.dropped == 1


def test_boxes_that_seem_to_be_corners_are_told():
    corners = np.array([[60, 40, 120, 90], [90, 30, 150, 80], [80, 50, 130, 95]], dtype=float)
    sizes = np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1)
    for boxes, told in ((corners, True), (sizes, False)):
        source = FileBoxes({0: Boxes(boxes, np.ones(3))})
        assert source.doubt() == ""
        source.locate(Frame(0, image=np.zeros((100, 160, 3), np.uint8)))
        assert ("3 of 3 boxes" in source.doubt() and "two corners" in source.doubt()) == told


@pytest.mark.parametrize("convert", [list, torch.tensor, np.array])
def test_a_detector_of_a_caller_may_return_lists_or_tensors(convert):
    frame = Frame(0, image=np.zeros((100, 200, 3), np.uint8))
    boxes, scores = DetectedBoxes(FixedDetector(convert([[10, 10, 40, 60]]), convert([0.5]))).locate(frame)
    assert boxes.tolist() == [[10, 10, 40, 60]]
    assert scores.tolist() == [0.5]
    assert DetectedBoxes(FixedDetector(convert([]), convert([]))).locate(frame).boxes.shape == (0, 4)


@pytest.mark.parametrize(
    ("boxes", "scores", "fact"),
    [
        ([[10, 10, 40, 60]], [0.5, 0.4], r"\(1, 4\) and scores of shape \(2,\)"),
        ([[10, 10, 40, 60, 0.9]], [0.5], r"\(1, 5\) and scores"),
        ([[10, 10, 40, 60], [1]], [0.5], "no boxes and scores"),
    ],
)
def test_boxes_and_scores_of_a_detector_that_do_not_fit(boxes, scores, fact):
    with pytest.raises(DistilPoseError, match=f"FixedDetector returns .*{fact}"):
        DetectedBoxes(FixedDetector(boxes, scores)).locate(Frame(0, image=np.zeros((100, 200, 3), np.uint8)))
