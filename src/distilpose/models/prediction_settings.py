"""What decides a prediction besides architecture and weights: every file of a model holds it.

The architecture (`PoseModel.config`) holds the skeleton with its flip pairs, the input size, the activation of heat maps, and
whether the scores are trained. The rest is here: padding, flip test, mean, std, decoding.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from distilpose.models.model import PoseModel

# how keypoints follow from the output: a student's are coordinates, a teacher's the peaks of its maps (DARK, Zhang et al. 2020)
DECODINGS = {"student": "coordinates", "teacher": "dark"}


def prediction_settings(model: PoseModel) -> dict[str, Any]:
    """The settings of a model in plain containers: mean, std, decoding, and padding and flip_test if they are known."""
    known = {name: value for name in ("padding", "flip_test") if (value := getattr(model, name)) is not None}
    return {"mean": list(model.mean), "std": list(model.std), "decoding": DECODINGS[model.kind], **known}


def restore_settings(model: PoseModel, saved: Mapping[str, Any]) -> None:
    """Set padding and flip test of a loaded model; mean and std are arguments of `create_model`.

    Args:
        model: changed in place.
        saved: result of `prediction_settings`; files of earlier versions lack some or all of it.

    Raises:
        ValueError: the file was made for a decoding that this version does not have.
    """
    decoding = saved.get("decoding", DECODINGS[model.kind])
    if decoding != DECODINGS[model.kind]:
        raise ValueError(f"decoding {decoding}, this version has {DECODINGS[model.kind]}")
    model.padding, model.flip_test = valid_padding(saved.get("padding")), saved.get("flip_test")


def valid_padding(value: Any) -> float | None:
    """A positive, finite number; None for anything else."""
    return float(value) if isinstance(value, (int, float)) and 0 < value < math.inf else None
