"""Persons upright and others: networks that learnt from people on their feet are poor at the rest."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import torch
from pycocotools.coco import COCO
from torch import Tensor

from distilpose.evaluation.coco_ap import load_coco
from distilpose.evaluation.pck import PCK, pck_of_predictions
from distilpose.outputs import Predictions
from distilpose.skeleton import Skeleton, side_of


class OrientedPCK(NamedTuple):
    """PCK by the orientation of the body; a person whose orientation is not known is in neither.

    Attributes:
        upright: of persons whose torso points up within 45 degrees.
        other: of the other persons: lying, leaning, upside down.
    """

    upright: PCK
    other: PCK


def is_upright(target: Tensor, labelled: Tensor, skeleton: Skeleton) -> tuple[Tensor, Tensor]:
    """Whether a person's torso points up within 45 degrees, 45 itself included.

    The torso goes from the middle of the hips to the middle of the shoulders, or to the neck where a shoulder is not
    labelled or the skeleton has none.

    Args:
        target: (N, K, 2) pixels of an image, y downwards.
        labelled: (N, K) above 0 where the joint is labelled.
        skeleton: names the K joints.

    Returns:
        (N,) bool, False where it is not known; and (N,) bool, whether it is known.
    """
    hips, hips_known = _middle(target, labelled > 0, _pair(skeleton, "hip"))
    top, top_known = _middle(target, labelled > 0, _pair(skeleton, "shoulder"))
    neck, neck_known = _middle(target, labelled > 0, _neck(skeleton))
    top = torch.where(top_known[:, None], top, neck)
    across, down = (top - hips).unbind(-1)
    known = hips_known & (top_known | neck_known) & ((across != 0) | (down != 0))
    return known & (-down >= across.abs()), known


def pck_by_orientation(
    predictions: Predictions, annotations: str | Path | COCO, skeleton: Skeleton
) -> OrientedPCK | None:
    """PCK of upright persons and of the others, found in ground-truth boxes.

    Args:
        predictions: N persons, matched to their annotations by `annotation_id`.
        annotations: COCO annotation file, or pycocotools' `COCO` of it.
        skeleton: of the annotations and the predictions.

    Returns:
        None where the skeleton's names tell no shoulders and hips.
    """
    if _pair(skeleton, "hip") is None or _pair(skeleton, "shoulder") is None:
        return None
    truth = load_coco(annotations)
    flat = [truth.anns[number]["keypoints"] for number in predictions.annotation_id.tolist()]
    target = torch.tensor(flat, dtype=torch.float64).reshape(-1, skeleton.num_keypoints, 3)
    upright, known = is_upright(target[..., :2], target[..., 2], skeleton)
    parts = (Predictions(*(field[chosen] for field in predictions)) for chosen in (upright, known & ~upright))
    return OrientedPCK(*(pck_of_predictions(part, truth, skeleton) for part in parts))


def _pair(skeleton: Skeleton, part: str) -> list[int] | None:
    """The left and the right joint of that part, or None where the names do not tell them."""
    found = {side_of(name): index for index, name in enumerate(skeleton.names) if part in name.lower()}
    return [found["left"], found["right"]] if {"left", "right"} <= found.keys() else None


def _neck(skeleton: Skeleton) -> list[int] | None:
    """The neck, or None where no name tells it."""
    found = [index for index, name in enumerate(skeleton.names) if "neck" in name.lower()]
    return found[:1] or None


def _middle(target: Tensor, labelled: Tensor, joints: list[int] | None) -> tuple[Tensor, Tensor]:
    """(N, 2) mean of some joints and (N,) whether all of them are labelled; never, where there are none."""
    if joints is None:
        return torch.zeros_like(target[:, 0]), torch.zeros_like(labelled[:, 0])
    return target[:, joints].mean(1), labelled[:, joints].all(1)
