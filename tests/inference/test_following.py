"""Which boxes of a frame are looked at."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np

from distilpose.inference.following import Follower
from distilpose.inference.photographs import Frame
from distilpose.inference.sources import Boxes


def test_what_a_detector_finds_beside_the_image_is_nobody():
    found = np.array([[10, 10, 40, 60], [300, 10, 40, 60], [10, 10, 1e-9, 60], [np.nan, 10, 40, 60]])
    follower = Follower(lambda image: Boxes(found, np.array([0.9, 0.8, 0.7, 0.6])))
    follower.detector.every = 1
    boxes, scores = follower.boxes(Frame(0, image=np.zeros((100, 200, 3), np.uint8)))
    assert boxes.tolist() == found[:1].tolist()
    assert scores.tolist() == [0.9]


def test_the_whole_image_stays_the_whole_image():
    follower = Follower(SimpleNamespace(every=1))
    follower.detector = lambda image: Boxes(None, None)
    assert follower.boxes(Frame(0, image=np.zeros((10, 20, 3), np.uint8))) == Boxes(None, None)
