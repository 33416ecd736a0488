"""A teacher from a checkpoint of this package: live in training, or recorded."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from annotated_types import Ge, Unit
from lightning.pytorch.utilities import rank_zero_only
from numpy.typing import NDArray
from torch import Tensor

from distilpose.data import CocoDataModule
from distilpose.data.geometry import region_of_box, warp_of_region
from distilpose.errors import DistilPoseError
from distilpose.files import sha256_of
from distilpose.losses.distributions import FLOOR
from distilpose.models import PoseModel, load_model
from distilpose.models.remote import local_file
from distilpose.outputs import PoseBatch, TeacherOutput
from distilpose.teachers.base import Source, SourceOutput, Teacher, crops_of, match_joints, reorder_joints
from distilpose.teachers.check import describe_check
from distilpose.teachers.heatmaps import peak_confidence, resample, resize_heatmaps

log = logging.getLogger(__name__)

Precision = Literal[32, 16, "bf16", "32", "16"]
DTYPES = {"None": None, "32": torch.float32, "bf16": torch.bfloat16, "16": torch.float16}
ADVICE = (
    "train one with `python -m distilpose.train model=teacher_stem` (or teacher_hrnet_w48, or an experiment's own, such as "
    "experiment=lspet_teacher) or convert the release's with `python -m distilpose.convert`, then pass "
    "teacher.checkpoint=FILE; loss=regression trains without a teacher."
)


class FrozenTeacher(Teacher):
    """A heat-map network in eval mode, without gradients.

    For a person without any label the trust is `peak_confidence`. For a labelled person it is 1 for labelled joints, else 0.

    Args:
        model: the teacher network.
        compile: run it through torch.compile.
        precision: precision of its forward pass; null follows trainer.precision.
        check: reject a teacher whose heat maps are out of range or whose accuracy is near chance (see `check_teacher`).
        check_persons: number of validation persons used for the check.
        resize: resize the student's crops to the teacher's size, if they differ.
    """

    model: PoseModel
    reads_images = True

    def __init__(
        self,
        model: PoseModel,
        compile: bool = False,
        precision: Precision | None = None,
        check: bool = True,
        check_persons: int = 300,
        resize: bool = False,
    ):
        self.model = model.eval().requires_grad_(False)
        self.name, self.skeleton = model.name, model.skeleton
        self.floor = floor_of(model)
        self.forward: Callable[[Tensor], TeacherOutput] = torch.compile(self.model) if compile else self.model
        self.student = model
        self._dtype = DTYPES[str(precision)]
        self._check, self.check_persons = check, check_persons
        self._resize = resize
        # the teacher's joints in the student's order; None if both have the same joints
        self._joints: list[int | None] | None = None
        self._unlabelled = False

    def set_student(self, student: PoseModel) -> None:
        """Set the student; see `Teacher`."""
        size, student_size = tuple(self.model.input_size), tuple(student.input_size)
        if size != student_size and not self._resize:
            raise DistilPoseError(
                f"The teacher reads crops of {size} and the student of {student_size} (height, width): pass "
                f"model.input_size={list(size)}, or teacher.resize=true to resize the student's crops, or record the teacher "
                "at its own size (python -m distilpose.record)."
            )
        joints = match_joints(self.skeleton, student.skeleton)
        self._joints = None if student.skeleton.names == self.skeleton.names else joints
        self.student = student

    def prepare(self, datamodule: CocoDataModule) -> None:
        """Remember whether the data have persons without labels, whose trust is computed from the maps."""
        self._unlabelled = datamodule.unlabelled
        shown = getattr(datamodule, "padding", None)
        if shown is not None and self.model.padding not in (None, shown):
            rank_zero_only(log.warning)(
                f"The teacher {self.name} was trained with padding {self.model.padding:g}, but sees crops with "
                f"data.padding={shown:g}: record it in its own crops (python -m distilpose.record), or train with "
                "its padding."
            )

    def __call__(self, batch: PoseBatch) -> TeacherOutput:
        """Heat maps and tokens of a batch; see `Teacher`."""
        with torch.no_grad():
            images = resample(batch.image, self.model.input_size)
            if self._dtype is None:
                output = self.forward(images)
            else:
                mixed = self._dtype != torch.float32
                with torch.autocast(images.device.type, dtype=self._dtype if mixed else None, enabled=mixed):
                    output = self.forward(images)
            if self._unlabelled:
                output = output._replace(trust=peak_confidence(output.heatmaps, softmax=self.floor == 0))
            output = output._replace(heatmaps=resize_heatmaps(output.heatmaps, self.student.heatmap_size))
            if self._joints is not None:
                output = reorder_joints(self._joints, output, batch)
            if self._unlabelled and output.trust is not None:
                has_labels = batch.labelled.any(dim=1, keepdim=True)
                known = 1.0 if output.known is None else output.known
                output = output._replace(trust=torch.where(has_labels, batch.weights * known, output.trust))
            return output

    def check(self, datamodule: CocoDataModule) -> str | None:
        """Check heat maps and accuracy on validation persons; see `check_teacher`."""
        if not self._check:
            return None
        device = next(self.model.parameters()).device
        return describe_check(self, datamodule.val_dataset(), self.check_persons, device)

    def move(self, fn: Callable[[Tensor], Tensor]) -> None:
        """Move the network."""
        self.model._apply(fn)


class CheckpointSource(Source):
    """A heat-map network that is run on crops of its own input size. Trust is `peak_confidence`.

    Args:
        model: the network.
        digest: SHA-256 of its file.
        padding: factor on the box around a person, as in its training.
        device: device that runs it.
    """

    def __init__(self, model: PoseModel, digest: str, padding: float = 1.25, device: torch.device | str = "cpu"):
        self.model = model.eval().to(device)
        self.name, self.skeleton = model.name, model.skeleton
        self.map_size = (int(model.heatmap_size[0]), int(model.heatmap_size[1]))
        self.padding, self.device = padding, torch.device(device)
        size = list(model.input_size)
        self.about = {
            "name": self.name, "sha256": digest, "input_size": size, "padding": padding, "floor": floor_of(model)
        }  # fmt: skip

    @torch.no_grad()
    def __call__(self, images: Sequence[NDArray[np.uint8]], boxes: NDArray[np.float64]) -> SourceOutput:
        """Heat maps of one person in each of N images; see `Source`."""
        size = (int(self.model.input_size[0]), int(self.model.input_size[1]))
        warps = [warp_of_region(region_of_box(box, size, self.padding), size) for box in boxes]
        batch = crops_of(images, warps, size, self.model.mean, self.model.std)
        heatmaps = self.model(batch.to(self.device)).heatmaps.float().cpu()
        trust = peak_confidence(heatmaps, softmax=floor_of(self.model) == 0)
        per_cell = size[1] / self.map_size[1]
        return SourceOutput(heatmaps.numpy(), np.stack(warps) / per_cell, trust.numpy())


def floor_of(model: PoseModel) -> float:
    """Noise floor of a network's maps (see `DistillationLoss.floor`); 0 for softmax maps, which have no noise."""
    return 0.0 if getattr(model.head, "activation", "none") == "softmax" else FLOOR


def load_teacher(
    checkpoint: str | Path | None,
    compile: bool = False,
    precision: Precision | None = None,
    check: bool = True,
    check_persons: Annotated[int, Ge(1), Unit("persons")] = 300,
    resize: bool = False,
) -> FrozenTeacher:
    """The teacher in a checkpoint of this package (.ckpt or .safetensors).

    Args:
        checkpoint: the file, or another form that `load_model` takes.
        compile: run the teacher through torch.compile.
        precision: precision of the teacher's forward pass; null follows trainer.precision.
        check: reject a teacher whose heat maps are out of range or whose accuracy is near chance.
        check_persons: number of validation persons used for the check.
        resize: resize the student's crops to the teacher's size, if they differ.
    """
    return FrozenTeacher(_load_network(checkpoint), compile, precision, check, check_persons, resize)


def checkpoint_source(settings: Mapping[str, Any], padding: float, device: torch.device) -> CheckpointSource:
    """The source for `record` from the settings of `load_teacher`.

    Args:
        settings: settings of `conf/teacher/checkpoint.yaml`.
        padding: factor on the box around a person if the file does not state that of its training.
        device: device that runs the network.
    """
    model = _load_network(settings["checkpoint"])
    padding = padding if model.padding is None else model.padding
    return CheckpointSource(model, sha256_of(local_file(settings["checkpoint"])), padding, device)


def _load_network(checkpoint: str | Path | None) -> PoseModel:
    if checkpoint is None:
        raise DistilPoseError(f"A distillation needs a teacher, but teacher.checkpoint is not set: {ADVICE}")
    model = load_model(checkpoint)
    if model.kind != "teacher":
        raise DistilPoseError(
            f"'{checkpoint}' holds the student {model.name}, but a teacher must predict heat maps: {ADVICE}"
        )
    return model
