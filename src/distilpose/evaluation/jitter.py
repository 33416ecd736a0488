"""Jitter and error of the joints of a video."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Steadiness(NamedTuple):
    """Metrics of one person's joints in a video.

    Attributes:
        jitter: mean length of the acceleration of the predictions minus that of the truth, pixels per frame squared.
        acceleration_error: mean length of the difference of both accelerations, pixels per frame squared.
        error: mean distance to the truth, pixels.
        pck: share of joints within 0.2 of the torso length.
    """

    jitter: float
    acceleration_error: float
    error: float
    pck: float


def steadiness(predicted: NDArray, truth: NDArray, torso: float) -> Steadiness:
    """Compare predictions with the truth.

    Args:
        predicted: (T, K, 2) pixels, at least 3 frames.
        truth: (T, K, 2) pixels.
        torso: mean length of the torso over all frames, in pixels.
    """
    distance = np.linalg.norm(predicted - truth, axis=-1)
    predicted, truth = (np.diff(positions, n=2, axis=0) for positions in (predicted, truth))  # accelerations
    jitter = np.linalg.norm(predicted, axis=-1).mean() - np.linalg.norm(truth, axis=-1).mean()
    difference = np.linalg.norm(predicted - truth, axis=-1).mean()
    return Steadiness(float(jitter), float(difference), float(distance.mean()), float((distance <= 0.2 * torso).mean()))
