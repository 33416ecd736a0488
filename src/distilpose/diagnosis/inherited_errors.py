"""What a student took over from its teacher: its errors, and its tokens."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Inherited(NamedTuple):
    """A student's joints where its teacher is wrong and where it is right. Shares are nan where there is no such joint.

    Attributes:
        teacher_wrong: joints where the teacher is wrong.
        wrong_too: share of these where the student is wrong as well.
        follows: share of these where the student is at the teacher's wrong place: nearer to it than to the truth, and
            within the PCK distance of it. Persons without that distance are left out.
        teacher_right: joints where the teacher is right.
        right_too: share of these where the student is right as well.
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
    """How a student does where its teacher is wrong; a student that was never taught is the control.

    Args:
        student: (N, K, 2) places in image pixels.
        teacher: (N, K, 2).
        target: (N, K, 2) true places.
        labelled: (N, K) bool, the joints that count.
        right: (N, K) bool, whether the student is right.
        teacher_right: (N, K) bool.
        allowed: (N,) PCK distance of the person in pixels, 0 where there is none.
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
    """How far a student's tokens are from a teacher's, collected batch by batch.

    Attributes:
        persons: how many were added.
    """

    def __init__(self) -> None:
        self.persons = 0
        self._difference = self._square = self._cosine = 0.0
        self._sum = torch.zeros((), dtype=torch.float64)

    def add(self, student: Tensor, teacher: Tensor) -> None:
        """Count a batch of tokens (N, T, D), of one shape."""
        student, teacher = student.double(), teacher.double()
        self.persons += len(teacher)
        self._difference += (student - teacher).square().sum().item()
        self._square += teacher.square().sum().item()
        self._sum = self._sum.to(teacher.device) + teacher.sum(0)
        self._cosine += torch.cosine_similarity(student, teacher, dim=-1).mean(-1).sum().item()

    @property
    def relative(self) -> float:
        """Squared difference relative to the teacher's spread, ||s - t||^2 / ||t - mean(t)||^2.

        The mean is over persons, for each token's place by itself: 0 is a copy, 1 no better than the mean token there,
        which never looks. nan where the teacher's tokens never vary.
        """
        spread = self._square - self._sum.square().sum().item() / max(1, self.persons)
        return self._difference / spread if spread > 1e-9 * self._square else float("nan")

    @property
    def cosine(self) -> float:
        """Mean cosine of the angle between the student's and the teacher's token, in [-1, 1]."""
        return self._cosine / self.persons if self.persons else float("nan")


def _share(what: Tensor, among: Tensor) -> float:
    """Share of the joints of one mask that are in another too."""
    return float((what & among).sum() / among.sum())
