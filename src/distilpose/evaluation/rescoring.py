"""The score of a person from that of the box and those of the joints, and who is left when doubles are dropped."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from distilpose.evaluation.oks import PADDING, oks_nms_per_image, padded_area
from distilpose.outputs import Predictions
from distilpose.skeleton import Skeleton


def rescore(bbox_score: Tensor, joint_scores: Tensor, threshold: float = 0.2) -> Tensor:
    """Box score times the mean of the joint scores above a threshold, as every top-down method is evaluated.

    A student's raw scores may be negative, and a hard person's may all lie below the threshold: the person then scores
    0 and is kept, last in the ranking. (Leaving such persons out, as one evaluator does, would lower recall unseen.)

    Args:
        bbox_score: (N,) score of the box.
        joint_scores: (N, K) score of each joint.
        threshold: joints at or below it do not count.

    Returns:
        (N,) float64.
    """
    confident = joint_scores > threshold
    total = joint_scores.double().where(confident, 0.0).sum(-1)
    return bbox_score.double() * total / confident.sum(-1).clamp(min=1)


def best_persons(
    predictions: Predictions,
    skeleton: Skeleton,
    input_size: Sequence[int],
    rescored: bool = True,
    nms_threshold: float = 0.9,
    padding: float = PADDING,
) -> tuple[Predictions, Tensor]:
    """The persons left without doubles, best first within each image, and their scores.

    Args:
        predictions: N persons.
        skeleton: without sigmas, no doubles are dropped.
        input_size: (H, W) of the crops.
        rescored: whether the joints' scores count beside the box's.
        nms_threshold: OKS above which the lower-scoring of two persons in an image is dropped.
        padding: factor by which the crops exceed the boxes.
    """
    order = torch.argsort(predictions.annotation_id, stable=True)
    order = order[torch.argsort(predictions.image_id[order], stable=True)]
    predictions = Predictions(*(field[order] for field in predictions))
    box_scores = predictions.bbox_score.double()
    scores = rescore(box_scores, predictions.scores) if rescored else box_scores
    if skeleton.sigmas is not None:
        areas = padded_area(predictions.bbox.double(), input_size, padding)
        kept = oks_nms_per_image(
            predictions.keypoints, scores, areas, predictions.image_id, skeleton.sigmas, nms_threshold
        )
        predictions, scores = Predictions(*(field[kept] for field in predictions)), scores[kept]
    return predictions, scores
