"""Measures what a student inherited from its teacher: errors and tokens."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Inherited(NamedTuple):
    """Joints of a student, split by whether its teacher is right. A share is nan if there are no such joints.

    Attributes:
        teacher_wrong: number of joints where the teacher is wrong.
        wrong_too: share of these where the student is wrong too.
        follows: share of these where the student repeats the teacher's error: nearer to the teacher's prediction than to
            the truth, and within the PCK distance of the prediction. Persons without that distance are left out.
        teacher_right: number of joints where the teacher is right.
        right_too: share of these where the student is right too.
    """

    teacher_wrong: int
    wrong_too: float
    follows: float
    teacher_right: int
    right_too: float


def inherited_errors(
    student: Tensor,
    teacher: Tensor,
    target: Tensor,
    labelled: Tensor,
    right: Tensor,
    teacher_right: Tensor,
    allowed: Tensor,
) -> Inherited:
    """Compare a student with its teacher. A student trained without teacher is the control.

    Args:
        student: (N, K, 2) predictions in image pixels.
        teacher: (N, K, 2) predictions in image pixels.
        target: (N, K, 2) truth in image pixels.
        labelled: (N, K) bool, the joints to count.
        right: (N, K) bool, whether the student is right.
        teacher_right: (N, K) bool, whether the teacher is right.
        allowed: (N,) PCK distance of the person in pixels, 0 if there is none.
    """
    from_teacher, from_truth = (student - teacher).norm(dim=-1), (student - target).norm(dim=-1)
    at_teacher = (from_teacher < from_truth) & (from_teacher <= allowed[:, None])
    wrong = labelled & ~teacher_right
    return Inherited(
        teacher_wrong=int(wrong.sum()),
        wrong_too=_share(~right, wrong),
        follows=_share(at_teacher, wrong & (allowed > 0)[:, None]),
        teacher_right=int((labelled & teacher_right).sum()),
        right_too=_share(right, labelled & teacher_right),
    )


class TokenDistance:
    """Distance of a student's tokens from a teacher's, accumulated over batches.

    Attributes:
        persons: number of persons.
    """

    def __init__(self) -> None:
        self.persons = 0
        self._difference = self._square = self._cosine = 0.0
        self._sum = torch.zeros((), dtype=torch.float64)

    def add(self, student: Tensor, teacher: Tensor) -> None:
        """Add a batch of tokens, both (N, T, D)."""
        student, teacher = student.double(), teacher.double()
        self.persons += len(teacher)
        self._difference += (student - teacher).square().sum().item()
        self._square += teacher.square().sum().item()
        self._sum = self._sum.to(teacher.device) + teacher.sum(0)
        self._cosine += torch.cosine_similarity(student, teacher, dim=-1).mean(-1).sum().item()

    @property
    def relative(self) -> float:
        """Squared difference relative to the variance of the teacher's tokens, ||s - t||^2 / ||t - mean(t)||^2.

        The mean is over persons, for each token position: 0 is a copy, 1 is no better than the mean token. nan if the
        teacher's tokens are constant.
        """
        spread = self._square - self._sum.square().sum().item() / max(1, self.persons)
        return self._difference / spread if spread > 1e-9 * self._square else float("nan")

    @property
    def cosine(self) -> float:
        """Mean cosine similarity of the student's and the teacher's tokens, in [-1, 1]."""
        return self._cosine / self.persons if self.persons else float("nan")


def _share(mask: Tensor, among: Tensor) -> float:
    """Share of the joints in mask `among` that are also in `mask`."""
    return float((mask & among).sum() / among.sum())
