"""Tokens of unlike networks made comparable: a learned linear map of width, and one grid resampled to the other."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class TokenProjection(nn.Module):
    """Takes a student's tokens to a teacher's width, and a teacher's visual tokens to the student's grid.

    The map is trained with the student and left behind with the teacher. Keypoint and visual tokens have a map each, and none
    where the widths agree.

    Args:
        student_width: D of the student.
        teacher_width: D of the teacher.
        student_grid: rows and columns of the student's patches.
        teacher_grid: rows and columns of the teacher's patches.
        visual: whether visual tokens are compared.
        keypoint: whether keypoint tokens are compared.
    """

    def __init__(
        self,
        student_width: int,
        teacher_width: int,
        student_grid: tuple[int, int],
        teacher_grid: tuple[int, int],
        visual: bool = True,
        keypoint: bool = True,
    ):
        super().__init__()
        self.student_grid, self.teacher_grid = tuple(student_grid), tuple(teacher_grid)
        unlike = student_width != teacher_width
        # a map that no term uses would stop distributed training
        self.visual = nn.Linear(student_width, teacher_width) if visual and unlike else nn.Identity()
        self.keypoint = nn.Linear(student_width, teacher_width) if keypoint and unlike else nn.Identity()
        for linear in self.children():
            if isinstance(linear, nn.Linear):
                nn.init.trunc_normal_(linear.weight, std=0.02)
                nn.init.zeros_(linear.bias)

    def resample(self, visual_tokens: Tensor) -> Tensor:
        """Teacher's visual tokens (N, P', D) on the student's grid, (N, P, D): averaged down, interpolated up."""
        if self.student_grid == self.teacher_grid:
            return visual_tokens
        planes = visual_tokens.transpose(1, 2).unflatten(2, self.teacher_grid)
        planes = F.interpolate(planes, self.student_grid, mode="bilinear", align_corners=False, antialias=True)
        return planes.flatten(2).transpose(1, 2)
