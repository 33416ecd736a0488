"""Frames with the boxes of the persons on them, and groups of frames whose persons are looked at together."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from distilpose.data.geometry import on_image
from distilpose.inference.detectors import Detector
from distilpose.inference.photographs import Frame
from distilpose.inference.sources import Boxes
from distilpose.inference.tracking import boxes_of_poses

NOBODY = Boxes(np.zeros((0, 4)), np.zeros(0))
_GROUP_BATCHES = 4
_GROUP_PIXELS = 64_000_000


class Follower:
    """Where the persons of each frame are: as the detector says, and around their last poses between its looks.

    With `detector.every` above 1 the persons of a frame have to be `told` before the next frame is asked for; where nobody
    was found in the last frame the detector looks at once.

    Args:
        detector: see `Detector`.
    """

    left_out = 0

    def __init__(self, detector: Detector) -> None:
        self.detector = detector
        self._last: tuple[NDArray, NDArray] | None = None

    def each(self, frames: Iterable[Frame]) -> Iterator[tuple[Frame, Boxes]]:
        """Frames, each with its boxes; nobody is on those without an image."""
        for frame in frames:
            yield frame, self.boxes(frame)

    def boxes(self, frame: Frame) -> Boxes:
        """The boxes of a frame's persons."""
        if frame.image is None:
            return NOBODY
        if self._last is not None and frame.number % self.detector.every:
            found = boxes_of_poses(*self._last, frame.image.shape[:2])
            if len(found):
                return Boxes(found, np.ones(len(found)))
        boxes, scores = self.detector(frame.image)
        if boxes is None or scores is None:
            return Boxes(boxes, scores)
        good = on_image(boxes, frame.image.shape[:2])  # detectors, too, find slivers and what lies beside
        return Boxes(boxes[good], scores[good])

    def told(self, keypoints: NDArray, scores: NDArray) -> None:
        """What was found in the frame asked for last: (N, K, 2) pixels and (N, K)."""
        self._last = (keypoints, scores)


class GivenBoxes:
    """Where the persons are, as a file says; used like a `Follower`.

    Args:
        boxes: by the number of the image or frame; nobody is on the others. Nor is anybody where a box has no size or lies
            wholly outside.

    Attributes:
        left_out: how many such boxes there were in the frames asked for.
    """

    def __init__(self, boxes: Mapping[int, Boxes]) -> None:
        self._boxes = boxes
        self.left_out = 0

    def each(self, frames: Iterable[Frame]) -> Iterator[tuple[Frame, Boxes]]:
        """Frames, each with its boxes; nobody is on those without an image."""
        for frame in frames:
            boxes, scores = self._boxes.get(frame.number, NOBODY)
            if frame.image is None or boxes is None or scores is None:
                yield frame, NOBODY
                continue
            good = on_image(boxes, frame.image.shape[:2])
            self.left_out += int((~good).sum())
            yield frame, Boxes(boxes[good], scores[good])

    def told(self, keypoints: NDArray, scores: NDArray) -> None:
        """Nothing is learnt from what was found."""


def grouped(frames: Iterable[tuple[Frame, Boxes]], batch_size: int) -> Iterator[list[tuple[Frame, Boxes]]]:
    """Groups of frames in order, each large enough for full batches and small enough for memory.

    Where a group ends depends on the images it holds alone, so a work that stopped between two groups and goes on there has
    the same groups, the same batches, and the same results to the last bit. Frames without an image do not count.

    Args:
        frames: with their boxes.
        batch_size: a group is complete at four times as many persons or frames, or at 64 million pixels; 0 makes a group of
            each frame.
    """
    group: list[tuple[Frame, Boxes]] = []
    persons = images = pixels = 0
    for frame, boxes in frames:
        group.append((frame, boxes))
        persons += 1 if boxes.boxes is None else len(boxes.boxes)
        if frame.image is not None:
            images += 1
            pixels += frame.image.shape[0] * frame.image.shape[1]
        full = _GROUP_BATCHES * batch_size
        if persons >= full or images >= full or pixels >= _GROUP_PIXELS:
            yield group
            group, persons, images, pixels = [], 0, 0, 0
    if group:
        yield group
