"""PCK by body orientation: networks trained mostly on upright persons are worse on all others."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import torch
from pycocotools.coco import COCO
from torch import Tensor

from distilpose.evaluation.coco_ap import load_coco
from distilpose.evaluation.pck import PCK, annotated_joints, joint_pair, pck_of_predictions
from distilpose.outputs import Predictions
from distilpose.skeleton import Skeleton


class OrientedPCK(NamedTuple):
    """PCK by body orientation. Persons of unknown orientation are in neither value.

    Attributes:
        upright: PCK of persons whose torso points up within 45 degrees.
        other: PCK of the other persons: lying, leaning, upside down.
    """

    upright: PCK
    other: PCK


def is_upright(target: Tensor, labelled: Tensor, skeleton: Skeleton) -> tuple[Tensor, Tensor]:
    """Whether a person's torso points up within 45 degrees (inclusive).

    The torso goes from the middle of the hips to the middle of the shoulders, or to the neck if a shoulder is not
    labelled or the skeleton has no shoulders.

    Args:
        target: (N, K, 2) image pixels, y downwards.
        labelled: (N, K) above 0 for labelled joints.
        skeleton: names of the K joints.

    Returns:
        (N,) bool, False if unknown; and (N,) bool, whether the orientation is known.
    """
    hips, hips_known = _middle(target, labelled > 0, joint_pair(skeleton, "hip"))
    top, top_known = _middle(target, labelled > 0, joint_pair(skeleton, "shoulder"))
    neck, neck_known = _middle(target, labelled > 0, _neck(skeleton))
    top = torch.where(top_known[:, None], top, neck)
    across, down = (top - hips).unbind(-1)
    known = hips_known & (top_known | neck_known) & ((across != 0) | (down != 0))
    return known & (-down >= across.abs()), known


def pck_by_orientation(
    predictions: Predictions, annotations: str | Path | COCO, skeleton: Skeleton
) -> OrientedPCK | None:
    """PCK of upright persons and of the others, for predictions in ground-truth boxes.

    Args:
        predictions: N persons, matched to their annotations by `annotation_id`.
        annotations: COCO annotation file, or pycocotools' `COCO` of it.
        skeleton: skeleton of the annotations and the predictions.

    Returns:
        None if the skeleton has no joints named shoulder and hip.
    """
    if joint_pair(skeleton, "hip") is None or joint_pair(skeleton, "shoulder") is None:
        return None
    truth = load_coco(annotations)
    target = annotated_joints(predictions, truth, skeleton)
    upright, known = is_upright(target[..., :2], target[..., 2], skeleton)
    parts = (Predictions(*(field[chosen] for field in predictions)) for chosen in (upright, known & ~upright))
    return OrientedPCK(*(pck_of_predictions(part, truth, skeleton) for part in parts))


def _neck(skeleton: Skeleton) -> list[int] | None:
    """Index of the first joint named neck, None if there is none."""
    necks = [index for index, name in enumerate(skeleton.names) if "neck" in name.lower()]
    return necks[:1] or None


def _middle(target: Tensor, labelled: Tensor, joints: list[int] | None) -> tuple[Tensor, Tensor]:
    """(N, 2) mean of some joints and (N,) whether all of them are labelled; False without joints."""
    if joints is None:
        return torch.zeros_like(target[:, 0]), torch.zeros_like(labelled[:, 0])
    return target[:, joints].mean(1), labelled[:, joints].all(1)
