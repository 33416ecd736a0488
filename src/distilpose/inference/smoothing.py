"""One-Euro filter: less jitter where a joint is slow, less lag where it is fast."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from annotated_types import Ge, Gt, Le, Unit
from numpy.typing import NDArray


@dataclass
class OneEuroFilter:
    """Smooths the joints of one person, each joint by itself (Casiez, Roussel and Vogel, CHI 2012).

    The cut-off frequency of a joint rises with its speed: `min_cutoff` + `beta` x speed. Speeds are in body lengths a second,
    not pixels, so one setting suits near and far persons. A joint below the threshold is unchanged and does not
    update the filter. The longer a joint was missing, the less weight its old position has afterwards.

    Attributes:
        min_cutoff: cut-off frequency of a joint at rest; lower is smoother.
        beta: increase of the cut-off frequency, in Hz, for a speed of one body length a second; higher follows faster.
        derivative_cutoff: cut-off frequency of the speed itself.
        threshold: joints with a score at or below this are not smoothed.
    """

    min_cutoff: Annotated[float, Gt(0), Unit("Hz")] = 4.0
    beta: Annotated[float, Ge(0)] = 8.0
    derivative_cutoff: Annotated[float, Gt(0), Unit("Hz")] = 1.0
    threshold: Annotated[float, Ge(0), Le(1)] = 0.2

    def __post_init__(self) -> None:
        self._smoothed: NDArray | None = None

    def __call__(self, time: float, keypoints: NDArray, scores: NDArray, size: float) -> NDArray:
        """The smoothed joints of the next frame.

        Args:
            time: seconds; later than in the call before.
            keypoints: (K, 2) pixels.
            scores: (K,).
            size: length of the person in pixels, such as the square root of the box's area.

        Returns:
            (K, 2) pixels; joints below the threshold are unchanged.
        """
        confident = (scores > self.threshold) & np.isfinite(keypoints).all(-1)
        if self._smoothed is None:
            self._smoothed, self._raw = np.full(keypoints.shape, np.nan), np.full(keypoints.shape, np.nan)
            self._speeds, self._times = np.zeros(keypoints.shape), np.full(len(keypoints), -math.inf)
        known = confident & np.isfinite(self._smoothed).all(-1)
        smoothed = np.array(keypoints, dtype=np.float64)
        # seconds since each joint was last above the threshold
        gaps = np.maximum(time - self._times[known], 1e-6)[:, None]
        alpha = _smoothing_factor(np.float64(self.derivative_cutoff), gaps)
        # speeds are differences of raw positions: smoothed positions lag behind, which would overestimate the speed
        self._speeds[known] += alpha * ((smoothed[known] - self._raw[known]) / gaps - self._speeds[known])
        speed = np.linalg.norm(self._speeds[known], axis=-1, keepdims=True) / max(size, 1e-6)
        alpha = _smoothing_factor(self.min_cutoff + self.beta * speed, gaps)
        smoothed[known] = self._smoothed[known] + alpha * (smoothed[known] - self._smoothed[known])
        self._smoothed[confident], self._raw[confident] = smoothed[confident], keypoints[confident]
        self._times[confident] = time
        return smoothed


def _smoothing_factor(cutoff: NDArray | np.float64, gap: NDArray) -> NDArray:
    """Weight of the new value in a low-pass filter, after a gap in seconds."""
    phase = 2 * math.pi * cutoff * gap
    return phase / (phase + 1)
