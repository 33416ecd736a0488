"""Sources of the boxes on each frame: a detector, tracked poses between its runs, or a file."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from distilpose.data.geometry import on_image
from distilpose.data.units import corners_sentence
from distilpose.errors import DistilPoseError, first_line
from distilpose.inference.boxes import NO_BOXES, Boxes, shift_of
from distilpose.inference.detectors import Detector
from distilpose.inference.images import Frame
from distilpose.inference.tracking import boxes_of_poses


class BoxSource(ABC):
    """Finds the boxes of the persons on each frame.

    Attributes:
        dropped: number of boxes so far that have no size or lie outside their frame.
        needs_poses: whether a frame's boxes depend on the poses of the frame before.
    """

    dropped = 0
    needs_poses = False

    @abstractmethod
    def locate(self, frame: Frame) -> Boxes:
        """The boxes of a frame's persons; none on a frame without an image."""

    def update(self, keypoints: NDArray, scores: NDArray) -> None:  # noqa: B027 - a source may ignore the poses
        """Use the poses of the last frame for the next: keypoints (N, K, 2) in pixels and scores (N, K)."""


class DetectedBoxes(BoxSource):
    """Runs a detector on every N-th frame (`detector.every`), and uses boxes around the last poses in between.

    If the last frame had no person, the detector also runs on the next frame.

    Args:
        detector: see `Detector`.
    """

    def __init__(self, detector: Detector) -> None:
        self.detector, self.needs_poses = detector, detector.every > 1
        self._poses: tuple[NDArray, NDArray] | None = None

    def locate(self, frame: Frame) -> Boxes:
        """See `BoxSource`."""
        if frame.image is None:
            return NO_BOXES
        if self._poses is not None and frame.number % self.detector.every:
            tracked = boxes_of_poses(*self._poses, frame.image.shape[:2])
            if len(tracked):
                return Boxes(tracked, np.ones(len(tracked)))
        boxes, scores = _checked(self.detector(frame.image), type(self.detector).__name__)
        valid = on_image(boxes, frame.image.shape[:2])  # some detectors return boxes without size or outside the image
        self.dropped += int((~valid).sum())
        return Boxes(boxes[valid], scores[valid])

    def update(self, keypoints: NDArray, scores: NDArray) -> None:
        """See `BoxSource`."""
        self._poses = (keypoints, scores)


def _checked(found: Boxes, detector: str) -> Boxes:
    """A detector's boxes and scores as arrays of one length. A detector of a caller may return lists or tensors."""
    try:
        boxes, scores = (np.asarray(part, dtype=np.float64) for part in found)
    except (TypeError, ValueError, RuntimeError) as error:
        raise DistilPoseError(
            f"{detector} returns no boxes and scores ({first_line(error)}): expected Boxes(boxes, scores), (N, 4) and (N,)."
        ) from error
    if boxes.size == scores.size == 0:
        return NO_BOXES
    if boxes.shape != (len(scores), 4) or scores.ndim != 1:
        raise DistilPoseError(
            f"{detector} returns boxes of shape {boxes.shape} and scores of shape {scores.shape}: expected (N, 4), x, y, "
            "width, height, and (N,)."
        )
    return Boxes(boxes, scores)


class FileBoxes(BoxSource):
    """Boxes read from a file.

    Args:
        boxes: by the number of the image or frame; images without an entry have no persons.
    """

    def __init__(self, boxes: Mapping[int, Boxes]) -> None:
        self._boxes = boxes
        self._seen: list[NDArray[np.float64]] = []  # boxes beside the width and height of their frame

    def locate(self, frame: Frame) -> Boxes:
        """See `BoxSource`."""
        if frame.image is None:
            return NO_BOXES
        boxes, scores = self._boxes.get(frame.number, NO_BOXES)
        self._seen.append(np.concatenate([boxes, np.tile(frame.image.shape[1::-1], (len(boxes), 1))], axis=1))
        valid = on_image(boxes, frame.image.shape[:2])
        self.dropped += int((~valid).sum())
        return Boxes(boxes[valid], scores[valid])

    def doubt(self) -> str:
        """A sentence if the boxes so far seem to be corners; "" if they do not."""
        seen = np.concatenate([np.zeros((0, 6)), *self._seen])
        return corners_sentence(seen[:, :4], seen[:, 4:])

    def unused(self, frames: int) -> str:
        """A sentence about the boxes of frames that a video of this many frames does not have; "" if there are none."""
        outside = {number: len(boxes.boxes) for number, boxes in self._boxes.items() if not 0 <= number < frames}
        if not outside:
            return ""
        shift = shift_of(self._boxes, range(frames))
        return (
            f"{sum(outside.values())} boxes of {len(outside)} frames that are not there are left out (frames {min(outside)} to "
            f"{max(outside)}; the video has 0 to {frames - 1})" + (f": {shift}" if shift else ".")
        )
