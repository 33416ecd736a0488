"""Sources of boxes."""

from __future__ import annotations

import numpy as np

from distilpose.inference.box_sources import DetectedBoxes
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
