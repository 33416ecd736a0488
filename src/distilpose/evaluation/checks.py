"""Checks before and after an evaluation: the device, the skeleton, the predictions."""

from __future__ import annotations

from typing import Any

import torch

from distilpose.errors import DistilPoseError, first_line
from distilpose.outputs import Predictions
from distilpose.skeleton import Skeleton


def choose_device(name: str) -> torch.device:
    """The device of that name; "auto" is the first GPU, or the CPU without one.

    Raises:
        DistilPoseError: the device is not available.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, TypeError) as error:
        raise DistilPoseError(
            f"Device {name!r} cannot be used ({first_line(error)}): use device=cpu, or device=auto for what is available."
        ) from error
    return device


def check_same_joints(model: Any, skeleton: Skeleton, data: Any, expected: Skeleton) -> None:
    """Raise unless a model has the joints of the data, in the same order.

    Args:
        model: name or file of the model, for the message.
        skeleton: skeleton of the model.
        data: annotation file, for the message.
        expected: skeleton of the data.
    """
    if skeleton.names != expected.names:
        raise DistilPoseError(
            f"{model} has {skeleton.num_keypoints} joints ({', '.join(skeleton.names[:3])}, …), but {data} has "
            f"{expected.num_keypoints} ({', '.join(expected.names[:3])}, …): give data and models of the same skeleton."
        )


def check_finite(predictions: Predictions, source: Any) -> None:
    """Raise on predictions that are not finite. They would count as misses, or as duplicates in OKS-NMS.

    Args:
        predictions: N persons.
        source: name of the model or file, for the message.
    """
    broken = int((~predictions.keypoints.isfinite().flatten(1).all(1) | ~predictions.scores.isfinite().all(1)).sum())
    if broken:
        raise DistilPoseError(
            f"{source} predicts keypoints or scores that are not finite for {broken} of {len(predictions.scores)} persons: "
            "its training diverged, use an earlier checkpoint."
        )
