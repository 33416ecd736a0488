"""A live source that is faster than its reader: the newest frames, with the times when they arrived."""

from __future__ import annotations

import time

import cv2
import numpy as np
import pytest

from distilpose.inference.live import LATEST, NewestFrames
from distilpose.inference.videos import open_source


class Camera:
    """A camera of 100 frames a second whose pictures show their time in milliseconds; reads wait, as a driver's do."""

    buffered = 0

    def __init__(self, *_):
        self.start, self.number, self.released = time.monotonic(), 0, False

    def isOpened(self):  # noqa: N802
        return True

    def get(self, key):
        return 100.0 if key == cv2.CAP_PROP_FPS else 0.0

    def read(self):
        self.number += 1
        time.sleep(max(0.0, self.start + self.number / 100 - time.monotonic()))
        image = np.zeros((4, 4, 3), np.uint8)
        image[0, 0] = (self.number // 256, self.number % 256, 0)
        return True, image

    def release(self):
        self.released = True


def shown(frame):
    """Seconds of the picture."""
    return (int(frame.image[0, 0, 2]) * 256 + int(frame.image[0, 0, 1])) / 100


@pytest.mark.slow
@pytest.mark.parametrize("wait", [0.0, 0.25])
def test_a_slow_reader_gets_the_newest_frames(wait, monkeypatch):
    monkeypatch.setattr(cv2, "VideoCapture", Camera)
    camera = open_source("webcam", max_frames=4)
    time.sleep(wait)  # as while a model is loaded
    start = camera._capture.start
    lags, frames = [], []
    for frame in camera.frames():
        lags.append(time.monotonic() - start - shown(frame))
        frames.append(frame)
        time.sleep(wait)
    assert max(lags) < LATEST + 0.4  # 1 s if frames were not dropped
    assert [frame.number for frame in frames] == [0, 1, 2, 3]
    assert [frame.time for frame in frames] == pytest.approx([shown(frame) for frame in frames], abs=0.4)
    assert camera._capture.released
    dropped = [note for note in camera.notes if "passed over" in note]
    if wait:
        (note,) = dropped
        assert any(f" {count} frames" in note for count in range(40, 180))
    else:
        assert not dropped


def test_a_burst_is_kept_and_an_old_frame_is_not(monkeypatch):
    """Frames that came together are all new; without a clock, a frame's age is set by hand."""
    pictures = [np.full((4, 4, 3), number, np.uint8) for number in range(4)]

    class Burst(Camera):
        def read(self):
            return (True, pictures.pop(0)) if pictures else (False, None)

    newest = NewestFrames(Burst(), np.full((4, 4, 3), 9, np.uint8), time.monotonic())
    newest._thread.join(timeout=5)
    newest._waiting[0] = (newest._waiting[0][0], time.monotonic() - 60)
    assert [int(newest.read()[0][0, 0, 0]) for _ in range(4)] == [0, 1, 2, 3]
    assert newest.read()[0] is None
    assert newest.dropped == 1


class BrokenCamera(Camera):
    def read(self):
        if self.number == 3:
            raise RuntimeError("no driver")
        return super().read()


def test_a_reader_does_not_wait_for_a_source_that_failed():
    camera = BrokenCamera()
    frames = NewestFrames(camera, camera.read()[1], time.monotonic())
    read = []
    while (image := frames.read()[0]) is not None:
        read.append(image)
    assert 1 <= len(read) <= 3
    assert "no driver" in frames.fault
    frames.close()
    assert camera.released
