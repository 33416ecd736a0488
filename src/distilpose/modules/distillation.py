"""Training a student, with a teacher or without."""

from __future__ import annotations

import logging
from typing import Any

from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor

from distilpose.errors import DistilPoseError
from distilpose.losses import DistillationLoss, TokenShape
from distilpose.models import PoseModel, copy_backbone, model_spec
from distilpose.modules.pose_module import PoseModule
from distilpose.outputs import PoseBatch, StudentOutput
from distilpose.teachers.base import Teacher

log = logging.getLogger(__name__)


class DistillationModule(PoseModule):
    """Trains a student with the losses of DistilPose. The teacher is frozen and not saved in checkpoints.

    Args:
        model: a student.
        loss: the weighted terms.
        teacher: a teacher of any kind; None if no term needs it.
        backbone_from_teacher: start the student's backbone from the teacher's weights. null follows the model's registry
            entry (student_l does, as in the paper).
        **options: arguments of `PoseModule`.
    """

    loss: DistillationLoss

    def __init__(
        self,
        model: PoseModel,
        loss: DistillationLoss,
        teacher: Teacher | None = None,
        backbone_from_teacher: bool | None = None,
        **options: Any,
    ):
        if model.kind != "student" or not isinstance(loss, DistillationLoss):
            raise DistilPoseError(
                f"method=distillation trains a model=student_… with a loss such as loss=distilpose or loss=regression, but got "
                f"{model.name} with {type(loss).__name__}: for a teacher pass method=heatmap loss=heatmap_mse."
            )
        super().__init__(model, **options)
        self.loss = loss
        self.teacher = teacher if loss.needs_teacher else None
        if loss.needs_teacher and teacher is None:
            raise DistilPoseError("This loss needs a teacher: set teacher.checkpoint=FILE, or pass loss=regression.")
        if self.teacher is not None:
            self.teacher.set_student(model)
            self._check_tokens(self.teacher)
            loss.set_teacher(self.teacher.floor, _token_shape(model), self.teacher.token_shape)
            if backbone_from_teacher is None:
                backbone_from_teacher = model_spec(model.name).backbone_from_teacher
            if backbone_from_teacher:
                _start_backbone(model, self.teacher)
            _log_unknown_joints(model, self.teacher)
        model.set_scores_trained(loss.trains_scores)

    def _check_tokens(self, teacher: Teacher) -> None:
        """Raise an error if the loss compares tokens that the teacher does not have."""
        if self.loss.needs_tokens and teacher.token_shape is None:
            advice = f"{teacher.tokens_advice}, or " if teacher.tokens_advice else ""
            raise DistilPoseError(
                f"The teacher {teacher.name} has no tokens: {advice}set loss.visual_token=0 loss.keypoint_token=0."
            )
        if self.loss.weights["keypoint_token"] > 0 and not teacher.has_keypoint_tokens:
            raise DistilPoseError(
                f"The teacher {teacher.name} has visual tokens and no keypoint tokens: set loss.keypoint_token=0 (and "
                "loss.project_tokens=true)."
            )

    def _apply(self, fn: Any, *args: Any, **kwargs: Any) -> Any:
        """Move the teacher together with the student."""
        if self.teacher is not None:
            self.teacher.move(fn)
        return super()._apply(fn, *args, **kwargs)

    def on_fit_start(self) -> None:
        """Check the teacher before the training; a resumed run does not check it again. Without one, check the labels."""
        if self.teacher is None:
            super().on_fit_start()
            return
        datamodule = self.trainer.datamodule  # type: ignore[attr-defined]
        self.teacher.prepare(datamodule)
        if self.trainer.ckpt_path is None and (message := self.teacher.check(datamodule)) is not None:
            rank_zero_only(log.info)(message)

    def progress(self) -> float:
        """Finished share of the training; 1 if no weight is ramped."""
        return self.trainer.global_step / max(1, self.trainer.estimated_stepping_batches) if self.loss.ramps else 1.0

    def terms(self, batch: PoseBatch, progress: float = 1.0) -> tuple[StudentOutput, dict[str, Tensor]]:
        """The student's output for a batch, and its weighted terms after a share `progress` of the training."""
        teacher = None if self.teacher is None else self.teacher(batch)
        student = self.model(batch.image)
        size = self.model.heatmap_size
        return student, self.loss(student, teacher, batch.keypoints, batch.weights, size, progress, batch.labelled)

    def training_step(self, batch: PoseBatch, batch_idx: int) -> Tensor:
        """The weighted sum of one batch's terms; each term is logged."""
        _, terms = self.terms(batch, self.progress())
        self.log_terms(terms, len(batch.image))
        return terms["total"]


def _token_shape(model: PoseModel | None) -> TokenShape | None:
    """Shape of a model's tokens; None if it has no tokens."""
    return None if model is None or model.encoder is None else model.encoder.token_shape


def _start_backbone(student: PoseModel, teacher: Teacher) -> None:
    if teacher.model is None:
        raise DistilPoseError(
            f"{student.name} starts from its teacher's backbone, but the teacher {teacher.name} has no backbone: pass "
            "method.backbone_from_teacher=false (and model.pretrained=true), or the teacher's checkpoint."
        )
    copy_backbone(student, teacher.model)


def _log_unknown_joints(student: PoseModel, teacher: Teacher) -> None:
    joints = student.skeleton.matching(teacher.skeleton)
    unknown = [name for name, joint in zip(student.skeleton.names, joints, strict=True) if joint is None]
    if unknown:
        rank_zero_only(log.info)(f"The teacher does not know {', '.join(unknown)}: they are learnt from labels alone.")
