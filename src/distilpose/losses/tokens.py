"""Comparison of tokens that differ in shape: a learned linear map between widths, and resampling between grids."""

from __future__ import annotations

from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn


class TokenShape(NamedTuple):
    """Shape of a network's tokens.

    Attributes:
        rows: patches from top to bottom.
        columns: patches from left to right.
        width: D.
    """

    rows: int
    columns: int
    width: int

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of the visual tokens."""
        return (self.rows, self.columns)


class TokenProjection(nn.Module):
    """Maps a student's tokens to the teacher's width, and the teacher's visual tokens to the student's grid.

    The maps are trained with the student and not used at inference. Keypoint and visual tokens have separate maps; tokens of
    equal width have none.

    Args:
        student: shape of the student's tokens.
        teacher: shape of the teacher's tokens.
        visual: whether visual tokens are compared.
        keypoint: whether keypoint tokens are compared.
    """

    def __init__(self, student: TokenShape, teacher: TokenShape, visual: bool = True, keypoint: bool = True):
        super().__init__()
        self.student_grid, self.teacher_grid = student.grid, teacher.grid
        widths, differ = (student.width, teacher.width), student.width != teacher.width
        # distributed training fails on parameters without a gradient, so only maps that a term uses are created
        self.visual = nn.Linear(*widths) if visual and differ else nn.Identity()
        self.keypoint = nn.Linear(*widths) if keypoint and differ else nn.Identity()
        for linear in self.children():
            if isinstance(linear, nn.Linear):
                nn.init.trunc_normal_(linear.weight, std=0.02)
                nn.init.zeros_(linear.bias)

    def forward(self, visual: Tensor, keypoint: Tensor, target: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The student's visual and keypoint tokens and the teacher's visual tokens, each in the shape of the comparison."""
        return self.visual(visual), self.keypoint(keypoint), self.resample(target)

    def resample(self, visual_tokens: Tensor) -> Tensor:
        """Resample the teacher's visual tokens (N, P', D) to the student's grid, (N, P, D): averaged down, interpolated up."""
        if self.student_grid == self.teacher_grid:
            return visual_tokens
        planes = visual_tokens.transpose(1, 2).unflatten(2, self.teacher_grid)
        planes = F.interpolate(planes, self.student_grid, mode="bilinear", align_corners=False, antialias=True)
        return planes.flatten(2).transpose(1, 2)
