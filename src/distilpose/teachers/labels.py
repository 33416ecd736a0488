"""The labels as a teacher: the control experiment of a distillation."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Gt, Unit

from distilpose.data import CocoDataModule
from distilpose.data.codec import encode_heatmaps
from distilpose.models import PoseModel
from distilpose.outputs import PoseBatch, TeacherOutput
from distilpose.teachers.base import Teacher


class LabelTeacher(Teacher):
    """Returns the Gaussian of each labelled joint as its heat map, without any network.

    A student may gain from a teacher's heat maps because the teacher adds knowledge, or because a loss over maps trains better
    than one over coordinates. With this teacher only the latter remains.

    Args:
        sigma: standard deviation of the Gaussians in cells of the student's map.
    """

    name = "labels"

    def __init__(self, sigma: Annotated[float, Gt(0), Unit("cells")] = 1.0):
        self.sigma = sigma

    def set_student(self, student: PoseModel) -> None:
        """Set the student; see `Teacher`."""
        self.student, self.skeleton = student, student.skeleton

    def __call__(self, batch: PoseBatch) -> TeacherOutput:
        """Heat maps of a batch; see `Teacher`."""
        return TeacherOutput(encode_heatmaps(batch.keypoints, batch.weights, self.student.heatmap_size, self.sigma)[0])

    def check(self, datamodule: CocoDataModule) -> str:
        """Return the line for the log; labels need no check."""
        return f"Teacher {self.name}: their Gaussians of {self.sigma:g} cells, without a network."
