"""Comparison of tokens of unlike shape: a learned linear map between widths, and resampling between grids."""

from __future__ import annotations

from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from distilpose.errors import DistilPoseError

NO_TOKENS = "This teacher gives heat maps and no tokens: set loss.visual_token=0 loss.keypoint_token=0."


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

    The maps are trained with the student and, like the teacher, not used at inference. Keypoint and visual tokens have a map
    each, and none where the widths agree.

    Args:
        student: shape of the student's tokens.
        teacher: shape of the teacher's tokens.
        visual: whether visual tokens are compared.
        keypoint: whether keypoint tokens are compared.
    """

    def __init__(self, student: TokenShape, teacher: TokenShape, visual: bool = True, keypoint: bool = True):
        super().__init__()
        self.student_grid, self.teacher_grid = student.grid, teacher.grid
        widths, unlike = (student.width, teacher.width), student.width != teacher.width
        # distributed training fails on parameters without a gradient, so no map is made that no term uses
        self.visual = nn.Linear(*widths) if visual and unlike else nn.Identity()
        self.keypoint = nn.Linear(*widths) if keypoint and unlike else nn.Identity()
        for linear in self.children():
            if isinstance(linear, nn.Linear):
                nn.init.trunc_normal_(linear.weight, std=0.02)
                nn.init.zeros_(linear.bias)

    def resample(self, visual_tokens: Tensor) -> Tensor:
        """Resample the teacher's visual tokens (N, P', D) to the student's grid, (N, P, D): averaged down, interpolated up."""
        if self.student_grid == self.teacher_grid:
            return visual_tokens
        planes = visual_tokens.transpose(1, 2).unflatten(2, self.teacher_grid)
        planes = F.interpolate(planes, self.student_grid, mode="bilinear", align_corners=False, antialias=True)
        return planes.flatten(2).transpose(1, 2)


def make_projection(
    student: TokenShape | None, teacher: TokenShape | None, allowed: bool, visual: bool, keypoint: bool
) -> TokenProjection | None:
    """The map that token terms need between two networks; None where their tokens have one shape.

    Args:
        student: shape of the student's tokens; None if it has none.
        teacher: shape of the teacher's tokens; None if it has none.
        allowed: whether a map may be learnt.
        visual: whether visual tokens are compared.
        keypoint: whether keypoint tokens are compared.

    Raises:
        DistilPoseError: there are no tokens to compare, or their shapes differ and no map is allowed.
    """
    if student is None or teacher is None:
        raise DistilPoseError(NO_TOKENS)
    if student == teacher:
        return None
    if not allowed:
        raise DistilPoseError(
            f"The student's visual tokens are {tuple(student)} and the teacher's {tuple(teacher)} (rows, columns, width), but "
            "token terms need one shape: change model.patch_size or model.width, set loss.project_tokens=true to learn a map "
            "between them, or loss.visual_token=0 loss.keypoint_token=0."
        )
    return TokenProjection(student, teacher, visual, keypoint)
