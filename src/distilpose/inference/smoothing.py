"""One-Euro filter: less jitter where a joint is slow, less delay where it is fast."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from distilpose.errors import check_number


class OneEuroFilter:
    """Smooths the joints of one person (Casiez, Roussel and Vogel, CHI 2012), each joint by itself.

    The cut-off frequency of a joint rises with its speed: `min_cutoff` + `beta` x speed. Speeds are in body lengths a second,
    not pixels, so that one setting suits persons near and far. A joint that is not sure is neither smoothed nor learnt from,
    and the longer it was away, the less its old place counts when it comes back.

    Args:
        min_cutoff: Hz, of a joint at rest; lower is smoother.
        beta: Hz for a speed of one body length a second; higher follows faster.
        derivative_cutoff: Hz, of the speed itself.
        threshold: joints with a score at or below it are not sure.
    """

    def __init__(
        self, min_cutoff: float = 4.0, beta: float = 8.0, derivative_cutoff: float = 1.0, threshold: float = 0.2
    ) -> None:
        check_number("smoothing.min_cutoff", min_cutoff, above=0)
        check_number("smoothing.beta", beta, least=0)
        check_number("smoothing.derivative_cutoff", derivative_cutoff, above=0)
        check_number("smoothing.threshold", threshold)
        self.min_cutoff, self.beta, self.derivative_cutoff = min_cutoff, beta, derivative_cutoff
        self.threshold = threshold
        self._places: NDArray | None = None

    def __call__(self, time: float, keypoints: NDArray, scores: NDArray, size: float) -> NDArray:
        """The smoothed joints of the next frame.

        Args:
            time: seconds; later than in the call before.
            keypoints: (K, 2) pixels.
            scores: (K,).
            size: length of the person in pixels, such as the square root of the box's area.

        Returns:
            (K, 2) pixels; a joint that is not sure is where it was given.
        """
        sure = (scores > self.threshold) & np.isfinite(keypoints).all(-1)
        if self._places is None:
            self._places, self._given = np.full(keypoints.shape, np.nan), np.full(keypoints.shape, np.nan)
            self._speeds, self._seen = np.zeros(keypoints.shape), np.full(len(keypoints), -math.inf)
        known = sure & np.isfinite(self._places).all(-1)
        smoothed = np.array(keypoints, dtype=np.float64)
        gaps = np.maximum(time - self._seen[known], 1e-6)[:, None]  # since the joint was last sure
        share = _share(np.float64(self.derivative_cutoff), gaps)
        # from place given to place given: smoothed ones lag behind, and would make any walk look faster than it is
        self._speeds[known] += share * ((smoothed[known] - self._given[known]) / gaps - self._speeds[known])
        speed = np.linalg.norm(self._speeds[known], axis=-1, keepdims=True) / max(size, 1e-6)
        share = _share(self.min_cutoff + self.beta * speed, gaps)
        smoothed[known] = self._places[known] + share * (smoothed[known] - self._places[known])
        self._places[sure], self._given[sure], self._seen[sure] = smoothed[sure], keypoints[sure], time
        return smoothed


def _share(cutoff: NDArray | np.float64, gap: NDArray) -> NDArray:
    """How much of a new value a low-pass filter takes, after a gap in seconds."""
    turned = 2 * math.pi * cutoff * gap
    return turned / (turned + 1)
