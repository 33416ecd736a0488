"""Which person of a frame is which of the frame before, and where they are between a detector's looks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from distilpose.errors import check_number
from distilpose.evaluation import oks, oks_sigmas
from distilpose.inference.smoothing import OneEuroFilter
from distilpose.skeleton import Skeleton


@dataclass
class Track:
    """A person followed.

    Attributes:
        number: the identity, from 1.
        box: (4,) x, y, width, height in the last frame it was seen.
        keypoints: (K, 2) pixels, there.
        seen: the number of that frame.
        smoother: of its joints, where they are smoothed.
    """

    number: int
    box: NDArray
    keypoints: NDArray
    seen: int
    smoother: OneEuroFilter | None = None


class Tracker:
    """Gives persons identities from frame to frame.

    The similarity of a person to a track is the mean of the boxes' intersection over union and the poses' object keypoint
    similarity. Pairs are made by the Hungarian method so that the sum of likenesses is largest. A track nobody is like is
    kept for `patience` frames, for the person to come back.

    Args:
        skeleton: of the poses.
        least: similarity below which a person is not the track's.
        patience: frames a track is kept without being seen.
        smoothing: settings of `OneEuroFilter`, to smooth each track's joints by; None leaves them as they are.
    """

    def __init__(
        self, skeleton: Skeleton, least: float = 0.15, patience: int = 30, smoothing: dict[str, float] | None = None
    ) -> None:
        check_number("tracking.least", least, least=0, most=1)
        check_number("tracking.patience", patience, least=0, whole=True)
        self.sigmas = oks_sigmas(skeleton)
        self.least, self.patience, self.smoothing = least, patience, smoothing
        if smoothing is not None:
            OneEuroFilter(**smoothing)  # refuses a setting that is no good before any work
        self.tracks: list[Track] = []
        self._frame, self._given = -1, 0

    def __call__(
        self, time: float, keypoints: NDArray, scores: NDArray, boxes: NDArray
    ) -> tuple[NDArray[np.int64], NDArray]:
        """Identities, and joints as they are to be shown, of the next frame's persons.

        Args:
            time: seconds.
            keypoints: (N, K, 2) pixels.
            scores: (N, K).
            boxes: (N, 4) x, y, width, height.

        Returns:
            (N,) identities, and (N, K, 2) pixels, smoothed if asked for.
        """
        self._frame += 1
        self.tracks = [track for track in self.tracks if self._frame - track.seen <= self.patience + 1]
        similarity = self._similarity(keypoints, boxes)
        similarity[similarity < self.least] = 0  # pairs that are dropped below shall not decide who else is paired
        rows, columns = linear_sum_assignment(similarity, maximize=True)
        pairs = {int(c): self.tracks[r] for r, c in zip(rows, columns, strict=True) if similarity[r, c] >= self.least}
        shown, numbers = np.array(keypoints, dtype=np.float64), np.zeros(len(boxes), np.int64)
        for person, box in enumerate(boxes):
            track = pairs.get(person) or self._new(box, keypoints[person])
            track.box, track.keypoints, track.seen = box, keypoints[person], self._frame
            numbers[person] = track.number
            if track.smoother is not None:
                size = float(np.sqrt(box[2] * box[3]))
                shown[person] = track.smoother(time, keypoints[person], scores[person], size)
        return numbers, shown

    def _new(self, box: NDArray, keypoints: NDArray) -> Track:
        self._given += 1
        smoother = None if self.smoothing is None else OneEuroFilter(**self.smoothing)
        self.tracks.append(Track(self._given, box, keypoints, self._frame, smoother))
        return self.tracks[-1]

    def _similarity(self, keypoints: NDArray, boxes: NDArray) -> NDArray:
        """(tracks, N) in [0, 1]."""
        if not self.tracks or not len(boxes):
            return np.zeros((len(self.tracks), len(boxes)))
        old = np.stack([track.box for track in self.tracks])
        poses = torch.from_numpy(np.stack([track.keypoints for track in self.tracks])).double()
        areas = torch.from_numpy((old[:, 2:].prod(1)[:, None] + boxes[:, 2:].prod(1)[None]) / 2).double()
        similar = oks(poses[:, None], torch.from_numpy(keypoints.copy()).double()[None], areas, self.sigmas).numpy()
        return (overlap(old, boxes) + np.nan_to_num(similar)) / 2


def overlap(first: NDArray, second: NDArray) -> NDArray:
    """(M, N) intersection over union of boxes (M, 4) and (N, 4), each x, y, width, height."""
    low = np.maximum(first[:, None, :2], second[None, :, :2])
    high = np.minimum((first[:, :2] + first[:, 2:])[:, None], (second[:, :2] + second[:, 2:])[None])
    shared = np.clip(high - low, 0, None).prod(-1)
    union = first[:, 2:].prod(1)[:, None] + second[:, 2:].prod(1)[None] - shared
    return shared / np.maximum(union, 1e-9)


def boxes_of_poses(keypoints: NDArray, scores: NDArray, size: Sequence[int], threshold: float = 0.2) -> NDArray:
    """Boxes to look for persons in the next frame: around their sure joints, a tenth wider on each side.

    A person with fewer than three sure joints, or none inside the image, is left out.

    Args:
        keypoints: (N, K, 2) pixels.
        scores: (N, K); joints at or below the threshold do not count.
        size: (H, W) of the image.
        threshold: see `scores`.

    Returns:
        (M, 4) x, y, width, height, inside the image.
    """
    found = []
    for points, certain in zip(keypoints, scores, strict=True):
        sure = points[(certain > threshold) & np.isfinite(points).all(-1)]
        if len(sure) < 3:
            continue
        low, high = sure.min(0), sure.max(0)
        room = np.maximum(0.1 * (high - low), 1.0)
        low, high = np.maximum(low - room, 0), np.minimum(high + room, (size[1], size[0]))
        if (high - low > 1).all():
            found.append([*low, *(high - low)])
    return np.array(found, dtype=np.float64).reshape(-1, 4)
