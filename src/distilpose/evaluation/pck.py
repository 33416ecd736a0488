"""PCK, the percentage of correct keypoints: the usual metric of sets with one person per image, like Leeds Sports."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import torch
from pycocotools.coco import COCO
from torch import Tensor

from distilpose.evaluation.coco_ap import load_coco
from distilpose.outputs import Predictions
from distilpose.skeleton import Skeleton


class PCK(NamedTuple):
    """Share of labelled joints within a distance of the truth.

    Attributes:
        value: over all joints of all counted persons; nan if there are none.
        per_joint: (K,) of each joint; nan for a joint without labels.
        reference: the distance in words, such as "0.2 of the torso".
        persons: number of counted persons.
        left_out: number of persons without a reference length (no labelled torso) or without a labelled joint.
    """

    value: float
    per_joint: Tensor
    reference: str
    persons: int
    left_out: int


def pck(
    predicted: Tensor, target: Tensor, labelled: Tensor, bbox: Tensor, skeleton: Skeleton, by_box: bool = False
) -> PCK:
    """PCK@0.2 of the torso, or PCK@0.1 of the longer side of the box for skeletons without shoulders and hips.

    The torso is the distance from the left shoulder to the right hip or, if one of them is not labelled, from the right
    shoulder to the left hip. Persons with neither are left out, and counted in `left_out`.

    Args:
        predicted: (N, K, 2) image pixels.
        target: (N, K, 2) image pixels.
        labelled: (N, K) above 0 for labelled joints.
        bbox: (N, 4) x, y, width, height in image pixels.
        skeleton: names of the K joints.
        by_box: measure by the box for any skeleton.
    """
    predicted, target, counted = predicted.double(), target.double(), labelled > 0
    allowed, reference = allowed_distance(target, labelled, bbox, skeleton, by_box)
    measured = (allowed > 0) & counted.any(-1)
    counted = counted & measured[:, None]
    correct = ((predicted - target).norm(dim=-1) <= allowed[:, None]) & counted
    persons = int(measured.sum())
    return PCK(
        value=float(correct.sum() / counted.sum()),
        per_joint=correct.sum(0) / counted.sum(0),
        reference=reference,
        persons=persons,
        left_out=len(measured) - persons,
    )


def pck_of_predictions(
    predictions: Predictions, annotations: str | Path | COCO, skeleton: Skeleton, by_box: bool = False
) -> PCK:
    """PCK of predictions in ground-truth boxes, matched to their annotations by `annotation_id`; see `pck`."""
    truth = load_coco(annotations)
    target = annotated_joints(predictions, truth, skeleton)
    keypoints, bbox = (field.cpu() for field in (predictions.keypoints, predictions.bbox))
    return pck(keypoints, target[..., :2], target[..., 2], bbox, skeleton, by_box)


def annotated_joints(predictions: Predictions, truth: COCO, skeleton: Skeleton) -> Tensor:
    """(N, K, 3) float64 x, y and visibility of the annotation of each prediction, in image pixels."""
    flat = [truth.anns[number]["keypoints"] for number in predictions.annotation_id.tolist()]
    return torch.tensor(flat, dtype=torch.float64).reshape(-1, skeleton.num_keypoints, 3)


def allowed_distance(
    target: Tensor, labelled: Tensor, bbox: Tensor, skeleton: Skeleton, by_box: bool = False
) -> tuple[Tensor, str]:
    """Largest distance of a correct joint to the truth, in image pixels, and its definition in words.

    Args:
        target: (N, K, 2) image pixels.
        labelled: (N, K) above 0 for labelled joints.
        bbox: (N, 4) x, y, width, height in image pixels.
        skeleton: names of the K joints.
        by_box: measure by the box for any skeleton.

    Returns:
        (N,) float64, 0 for a person without a reference length; and the definition.
    """
    target, labelled = target.double(), labelled > 0
    diagonals = None if by_box else torso_diagonals(skeleton)
    if diagonals is None:
        return 0.1 * bbox[:, 2:].double().amax(-1), "0.1 of the box's longer side"
    ends = torch.as_tensor(diagonals, device=target.device)
    length = (target[:, ends[:, 0]] - target[:, ends[:, 1]]).norm(dim=-1)
    length = length * (labelled[:, ends[:, 0]] & labelled[:, ends[:, 1]])
    return 0.2 * torch.where(length[:, 0] > 0, length[:, 0], length[:, 1]), "0.2 of the torso"


def torso_diagonals(skeleton: Skeleton) -> list[tuple[int, int]] | None:
    """(left shoulder, right hip) and (right shoulder, left hip), None if there are no joints of these names."""
    shoulders, hips = joint_pair(skeleton, "shoulder"), joint_pair(skeleton, "hip")
    if shoulders is None or hips is None:
        return None
    return [(shoulders[0], hips[1]), (shoulders[1], hips[0])]


def joint_pair(skeleton: Skeleton, part: str) -> list[int] | None:
    """Indices of the left and the right joint of a part of the body, None if no joints have such names."""
    return skeleton.pair_of(part)
