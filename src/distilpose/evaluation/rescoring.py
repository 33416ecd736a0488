"""Scores of persons from the scores of boxes and joints, and removal of duplicates."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from distilpose.evaluation.oks import PADDING, oks_nms_per_image, padded_area
from distilpose.outputs import Predictions
from distilpose.skeleton import Skeleton


def rescore(bbox_score: Tensor, joint_scores: Tensor, threshold: float = 0.2) -> Tensor:
    """Box score times the mean of the joint scores above a threshold, the convention of top-down methods.

    The raw scores of a student may be negative, and all scores of a difficult person may be below the threshold. Such a
    person gets score 0 and is kept, last in the ranking. (One evaluator drops such persons, which lowers the recall.)

    Args:
        bbox_score: (N,) score of the box.
        joint_scores: (N, K) score of each joint.
        threshold: joints with this score or a lower one do not count.

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
    """The persons without duplicates, best first within each image, and their scores.

    Args:
        predictions: N persons.
        skeleton: without sigmas, duplicates are not removed.
        input_size: (H, W) of the crops.
        rescored: whether box scores are multiplied by joint scores, see `rescore`.
        nms_threshold: OKS above which the lower-scoring of two persons in an image is removed.
        padding: factor on the boxes.
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
