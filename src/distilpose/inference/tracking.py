"""Tracks persons from frame to frame, and puts boxes around their poses between runs of a detector."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
from annotated_types import Ge, Le
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from distilpose.evaluation import oks, oks_sigmas
from distilpose.inference.smoothing import OneEuroFilter
from distilpose.skeleton import Skeleton

_MIN_SCORE = 0.2  # of the joints that a box around a pose contains


class TrackingSettings:
    """Settings of `Tracker`.

    Attributes:
        least: mean of box overlap and OKS below which a person does not belong to a track.
        patience: frames that a person may be missing and keep its identity.
    """

    least: Annotated[float, Ge(0), Le(1)]
    patience: Annotated[int, Ge(0)]


@dataclass
class Track:
    """A tracked person.

    Attributes:
        number: the identity, from 1.
        box: (4,) x, y, width, height in the last frame where it was seen.
        keypoints: (K, 2) pixels in that frame.
        seen: number of that frame.
        smoother: filter of its joints; None does not smooth.
    """

    number: int
    box: NDArray
    keypoints: NDArray
    seen: int
    smoother: OneEuroFilter | None = None


class Tracker:
    """Assigns identities to persons from frame to frame.

    The similarity of a person to a track is the mean of the boxes' intersection over union and the poses' object keypoint
    similarity (OKS). The Hungarian method pairs persons and tracks so that the sum of similarities is largest. A track
    without a person is kept for `patience` frames.

    Args:
        skeleton: of the poses.
        least: similarity below which a person does not belong to a track.
        patience: frames that a track is kept without a person.
        smoothing: settings of `OneEuroFilter` for the joints of each track; None does not smooth.
    """

    def __init__(
        self, skeleton: Skeleton, least: float = 0.15, patience: int = 30, smoothing: dict[str, float] | None = None
    ) -> None:
        self.sigmas = oks_sigmas(skeleton)
        self.least, self.patience, self.smoothing = least, patience, smoothing
        self.tracks: list[Track] = []
        self._frame, self._last_number = -1, 0

    def __call__(
        self, time: float, keypoints: NDArray, scores: NDArray, boxes: NDArray
    ) -> tuple[NDArray[np.int64], NDArray]:
        """Identities and joints of the next frame's persons.

        Args:
            time: seconds.
            keypoints: (N, K, 2) pixels.
            scores: (N, K).
            boxes: (N, 4) x, y, width, height.

        Returns:
            (N,) identities, and (N, K, 2) pixels, smoothed if the tracker smooths.
        """
        self._frame += 1
        self.tracks = [track for track in self.tracks if self._frame - track.seen <= self.patience + 1]
        similarity = self._similarity(keypoints, boxes)
        similarity[similarity < self.least] = 0  # rejected pairs must not influence the assignment of the others
        rows, columns = linear_sum_assignment(similarity, maximize=True)
        pairs = {int(c): self.tracks[r] for r, c in zip(rows, columns, strict=True) if similarity[r, c] >= self.least}
        smoothed, numbers = np.array(keypoints, dtype=np.float64), np.zeros(len(boxes), np.int64)
        for person, box in enumerate(boxes):
            track = pairs.get(person) or self._start_track(box, keypoints[person])
            track.box, track.keypoints, track.seen = box, keypoints[person], self._frame
            numbers[person] = track.number
            if track.smoother is not None:
                size = float(np.sqrt(box[2] * box[3]))
                smoothed[person] = track.smoother(time, keypoints[person], scores[person], size)
        return numbers, smoothed

    def _start_track(self, box: NDArray, keypoints: NDArray) -> Track:
        self._last_number += 1
        smoother = None if self.smoothing is None else OneEuroFilter(**self.smoothing)
        self.tracks.append(Track(self._last_number, box, keypoints, self._frame, smoother))
        return self.tracks[-1]

    def _similarity(self, keypoints: NDArray, boxes: NDArray) -> NDArray:
        """(tracks, N) in [0, 1]."""
        if not self.tracks or not len(boxes):
            return np.zeros((len(self.tracks), len(boxes)))
        old = np.stack([track.box for track in self.tracks])
        poses = torch.from_numpy(np.stack([track.keypoints for track in self.tracks])).double()
        areas = torch.from_numpy((old[:, 2:].prod(1)[:, None] + boxes[:, 2:].prod(1)[None]) / 2).double()
        similar = oks(poses[:, None], torch.from_numpy(keypoints.copy()).double()[None], areas, self.sigmas).numpy()
        return (box_iou(old, boxes) + np.nan_to_num(similar)) / 2


def box_iou(first: NDArray, second: NDArray) -> NDArray:
    """(M, N) intersection over union of boxes (M, 4) and (N, 4), each x, y, width, height."""
    low = np.maximum(first[:, None, :2], second[None, :, :2])
    high = np.minimum((first[:, :2] + first[:, 2:])[:, None], (second[:, :2] + second[:, 2:])[None])
    shared = np.clip(high - low, 0, None).prod(-1)
    union = first[:, 2:].prod(1)[:, None] + second[:, 2:].prod(1)[None] - shared
    return shared / np.maximum(union, 1e-9)


def boxes_of_poses(keypoints: NDArray, scores: NDArray, size: Sequence[int]) -> NDArray:
    """Boxes for the next frame: around the joints with a score above 0.2, a tenth wider on each side.

    A person with fewer than three such joints, or with all of them outside the image, is skipped.

    Args:
        keypoints: (N, K, 2) pixels.
        scores: (N, K).
        size: (H, W) of the image.

    Returns:
        (M, 4) x, y, width, height, inside the image.
    """
    boxes = []
    for person, person_scores in zip(keypoints, scores, strict=True):
        points = person[(person_scores > _MIN_SCORE) & np.isfinite(person).all(-1)]
        if len(points) < 3:
            continue
        low, high = points.min(0), points.max(0)
        margin = np.maximum(0.1 * (high - low), 1.0)
        low, high = np.maximum(low - margin, 0), np.minimum(high + margin, (size[1], size[0]))
        if (high - low > 1).all():
            boxes.append([*low, *(high - low)])
    return np.array(boxes, dtype=np.float64).reshape(-1, 4)
