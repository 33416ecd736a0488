"""The labels in a teacher's place: the control of a distillation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from distilpose.data import CocoDataModule
from distilpose.data.codec import encode_heatmaps
from distilpose.errors import check_number
from distilpose.models import PoseModel
from distilpose.outputs import PoseBatch, TeacherOutput
from distilpose.skeleton import Skeleton


class LabelTeacher:
    """Gives each labelled joint's Gaussian as its heat map, knowing nothing that the labels do not say.

    A student may gain from a teacher's heat maps because the teacher knows something, or because a loss over maps pulls
    better than one over coordinates. Under this teacher only the latter is left.

    Args:
        sigma: standard deviation of the Gaussians in cells.
    """

    model = None
    name = "labels"
    floor = 0.0
    skeleton: Skeleton

    def __init__(self, sigma: float = 1.0):
        check_number("teacher.sigma", sigma, above=0)
        self.sigma = sigma

    def teach(self, pupil: PoseModel) -> None:
        """Answer from now on in a student's joints and cells."""
        self.skeleton, self.heatmap_size = pupil.skeleton, pupil.heatmap_size

    def __call__(self, batch: PoseBatch) -> TeacherOutput:
        """The maps (N, K, H/4, W/4) of a batch; no tokens."""
        return TeacherOutput(encode_heatmaps(batch.keypoints, batch.weights, self.heatmap_size, self.sigma)[0])

    def examine(self, datamodule: CocoDataModule) -> str:
        """What it is, in words."""
        return f"Teacher labels: their Gaussians of {self.sigma:g} cells, and no network."

    def move(self, fn: Callable[[Tensor], Tensor]) -> None:
        """Nothing: maps are made where the batch is."""

    def __deepcopy__(self, memo: dict[int, Any]) -> LabelTeacher:
        """Itself, as `FrozenTeacher`."""
        return self
