"""The score of a person from that of the box and those of the joints."""

from __future__ import annotations

from torch import Tensor


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
