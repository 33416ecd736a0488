"""Training a student, with a teacher or alone."""

from __future__ import annotations

from typing import Any

from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor

from distilpose.errors import DistilPoseError
from distilpose.losses import DistillationLoss, TokenProjection
from distilpose.models import PoseModel, copy_backbone, model_spec
from distilpose.modules.base import PoseModule
from distilpose.outputs import PoseBatch, StudentOutput
from distilpose.teachers.check import check_teacher
from distilpose.teachers.frozen import FrozenTeacher
from distilpose.teachers.labels import LabelTeacher
from distilpose.teachers.recorded import RecordedTeacher

Teacher = FrozenTeacher | RecordedTeacher | LabelTeacher


class DistillationModule(PoseModule):
    """Trains a student by the losses of DistilPose; its teacher is asked, never trained, and never saved.

    Args:
        model: a student.
        loss: the weighted terms.
        teacher: frozen; None where no term needs it.
        backbone_from_teacher: start the student's backbone from the teacher's weights; None does what the model's
            registry entry says (paper: DistilPose-L does).
        **options: of `PoseModule`.
    """

    def __init__(
        self,
        model: PoseModel,
        loss: DistillationLoss,
        teacher: Teacher | None = None,
        backbone_from_teacher: bool | None = None,
        **options: Any,
    ):
        if model.kind != "student":
            raise DistilPoseError(
                f"The model {model.name} is a teacher, which regresses no coordinates: pass method=heatmap with "
                "loss=heatmap_mse or heatmap_ce, or a model=student_…"
            )
        if not isinstance(loss, DistillationLoss):
            raise DistilPoseError(
                f"{type(loss).__name__} trains teachers: give a student loss=distilpose or regression."
            )
        super().__init__(model, **options)
        self.loss = loss
        self.teacher = teacher if loss.needs_teacher else None
        if loss.needs_teacher and teacher is None:
            raise DistilPoseError("This loss needs a teacher: set teacher.checkpoint=FILE, or pass loss=regression.")
        if self.teacher is not None:
            self.teacher.teach(model)
            loss.floor = self.teacher.floor
            if loss.needs_tokens:
                _compare_tokens(model, self.teacher.model, loss)
            if backbone_from_teacher is None:
                backbone_from_teacher = model_spec(model.name).backbone_from_teacher
            if backbone_from_teacher:
                _start_backbone(model, self.teacher.model)
            _tell_untaught(model, self.teacher)
        model.scores_trained = loss.trains_scores

    def _apply(self, fn: Any, *args: Any, **kwargs: Any) -> Any:
        """Move the teacher wherever the student goes."""
        if self.teacher is not None:
            self.teacher.move(fn)
        return super()._apply(fn, *args, **kwargs)

    def on_fit_start(self) -> None:
        """Refuse a bad teacher before any time is spent on it; a resumed run has passed already."""
        datamodule = self.trainer.datamodule  # type: ignore[attr-defined]
        if self.teacher is None:
            if not datamodule.train_dataset().instances.labelled.any():
                raise DistilPoseError("No training person has a label and this loss has no teacher: nothing is learnt.")
            return
        if isinstance(self.teacher, FrozenTeacher):
            self.teacher.unlabelled = datamodule.unlabelled
        if self.trainer.ckpt_path is not None:
            return
        if not isinstance(self.teacher, FrozenTeacher):
            rank_zero_only(print)(self.teacher.examine(datamodule))
            return
        if not self.teacher.check:
            return
        figures = check_teacher(self.teacher, datamodule.val_dataset())
        if self.trainer.is_global_zero:
            print(
                f"Teacher {self.teacher.model.name}: {figures['accuracy']:.1%} of validation joints within 5 % of the crop "
                f"(mean pose {figures['chance']:.1%}), median peak {figures['median_peak']:.2f}"
            )

    def progress(self) -> float:
        """Share of the training that is over; 1 where no weight rises."""
        return self.trainer.global_step / max(1, self.trainer.estimated_stepping_batches) if self.loss.ramps else 1.0

    def terms(self, batch: PoseBatch, progress: float = 1.0) -> tuple[StudentOutput, dict[str, Tensor]]:
        """The student's output for a batch, and its weighted terms when that share of the training is over."""
        teacher = None if self.teacher is None else self.teacher(batch)
        student = self.model(batch.image)
        size = self.model.heatmap_size
        return student, self.loss(student, teacher, batch.keypoints, batch.weights, size, progress, batch.labelled)

    def training_step(self, batch: PoseBatch, batch_idx: int) -> Tensor:
        """The weighted sum of one batch's terms; each is logged."""
        _, terms = self.terms(batch, self.progress())
        self.log_terms(terms, len(batch.image))
        return terms["total"]


def _start_backbone(student: PoseModel, teacher: PoseModel | None) -> None:
    """Start from the teacher's backbone."""
    if teacher is None:
        raise DistilPoseError(
            f"{student.name} starts from its teacher's backbone, but a recorded teacher has none: pass "
            "method.backbone_from_teacher=false (and model.pretrained=true), or the teacher's checkpoint."
        )
    copy_backbone(student, teacher)


def _compare_tokens(student: PoseModel, teacher: PoseModel | None, loss: DistillationLoss) -> None:
    """Learn a map between tokens of unlike shape if that is asked for; else raise unless they are alike."""
    ours, theirs = student.encoder, None if teacher is None else teacher.encoder
    if ours is None or theirs is None:
        raise DistilPoseError(
            "This teacher gives heat maps and no tokens: set loss.visual_token=0 loss.keypoint_token=0."
        )
    grids, widths = (ours.grid, theirs.grid), (ours.width, theirs.width)
    if grids[0] == grids[1] and widths[0] == widths[1]:
        return
    if not loss.project_tokens:
        shapes = [(*grid, width) for grid, width in zip(grids, widths, strict=True)]
        raise DistilPoseError(
            f"The student's visual tokens are {shapes[0]} and the teacher's {shapes[1]} (rows, columns, width): token terms "
            "need them alike, so change model.patch_size or model.width, set loss.project_tokens=true to learn a map between "
            "them, or loss.visual_token=0 loss.keypoint_token=0."
        )
    used = [loss.weights[term] > 0 for term in ("visual_token", "keypoint_token")]
    loss.projection = TokenProjection(*widths, *grids, *used)


def _tell_untaught(student: PoseModel, teacher: Teacher) -> None:
    """Say which of the student's joints the teacher does not know."""
    matches = zip(student.skeleton.names, student.skeleton.matching(teacher.skeleton), strict=True)
    untaught = [name for name, joint in matches if joint is None]
    if untaught:
        rank_zero_only(print)(f"The teacher does not know {', '.join(untaught)}: labels alone teach them.")
