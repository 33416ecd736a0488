"""How much a video's joints tremble, and how far they are from where they should be."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Steadiness(NamedTuple):
    """Figures of one person's joints through a video.

    Attributes:
        jitter: mean length of the predictions' acceleration minus that of the truth's, pixels a frame squared.
        acceleration_error: mean length of the difference of the two accelerations, likewise.
        error: mean distance to the truth, pixels.
        pck: share of joints within 0.2 of the torso, the mean of its length over all frames.
    """

    jitter: float
    acceleration_error: float
    error: float
    pck: float


def steadiness(predicted: NDArray, truth: NDArray, torso: float) -> Steadiness:
    """Compare a prediction with the truth.

    Args:
        predicted: (T, K, 2) pixels, T at least 3.
        truth: (T, K, 2).
        torso: its length in pixels.
    """
    distance = np.linalg.norm(predicted - truth, axis=-1)
    ours, theirs = (np.diff(places, n=2, axis=0) for places in (predicted, truth))
    jitter = np.linalg.norm(ours, axis=-1).mean() - np.linalg.norm(theirs, axis=-1).mean()
    apart = np.linalg.norm(ours - theirs, axis=-1).mean()
    return Steadiness(float(jitter), float(apart), float(distance.mean()), float((distance <= 0.2 * torso).mean()))
