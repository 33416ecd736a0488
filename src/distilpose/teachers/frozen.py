"""A frozen teacher, answering in the joints and cells of its student."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from distilpose.errors import DistilPoseError, check_flag, check_number
from distilpose.losses.distributions import FLOOR
from distilpose.models import PoseModel, load_model
from distilpose.models.remote import local_file
from distilpose.outputs import PoseBatch, TeacherOutput

# cells; a softmax is taught Gaussians of 2 cells by default, and one much broader does not know where the joint is
BROADEST = 3.0
PRECISIONS = {None: None, "32": torch.float32, "bf16": torch.bfloat16, "16": torch.float16}


class FrozenTeacher:
    """A teacher that is only ever asked: in eval mode, without gradients, and not a part of what is trained.

    It is deliberately no `nn.Module`: a module that holds one has none of its parameters, so neither optimiser, DDP,
    checkpoint nor weight averaging ever sees them. The price is that the holder moves it by hand (`move`).

    Args:
        model: the teacher network.
        compile: run it through torch.compile.
        precision: "32", "bf16" or "16" for its forward pass; None follows the trainer's precision.
        check: refuse to start a distillation from a teacher that looks broken (see `check_teacher`).
        check_persons: how many validation persons the check looks at.
        resize: show it the student's crops enlarged or reduced where its own are of another size, instead of refusing.
    """

    def __init__(
        self,
        model: PoseModel,
        compile: bool = False,
        precision: str | int | None = None,
        check: bool = True,
        check_persons: int = 300,
        resize: bool = False,
    ):
        for flag, value in (("compile", compile), ("check", check), ("resize", resize)):
            check_flag(f"teacher.{flag}", value)
        check_number("teacher.check_persons", check_persons, least=1, whole=True)
        precision = None if precision is None else str(precision)
        if precision not in PRECISIONS:
            raise DistilPoseError(f"teacher.precision={precision} must be null, 32, bf16 or 16.")
        self.model = model.eval().requires_grad_(False)
        self.name, self.skeleton = model.name, model.skeleton
        self.floor = floor_of(model)
        self.dtype = PRECISIONS[precision]
        self.forward: Callable[[Tensor], TeacherOutput] = torch.compile(self.model) if compile else self.model
        self.check = check
        self.check_persons = check_persons
        self.resize = resize
        self.pupil = model
        # of the teacher, in the student's order; None where they are the same
        self.joints: list[int | None] | None = None
        # whether there are persons without labels, on whom it must say itself what it is sure of
        self.unlabelled = False

    def teach(self, pupil: PoseModel) -> None:
        """Answer from now on in a student's joints and cells.

        Raises:
            DistilPoseError: if they have no joint in common, or their crops differ and `resize` is off.
        """
        if tuple(pupil.input_size) != tuple(self.model.input_size) and not self.resize:
            raise DistilPoseError(
                f"The teacher reads crops of {tuple(self.model.input_size)} and the student of {tuple(pupil.input_size)} "
                f"(height, width): pass model.input_size={list(self.model.input_size)}, or teacher.resize=true to show it "
                "the student's crops resized, or record it at its own size (python -m distilpose.record)."
            )
        joints = shared_joints(self, pupil)
        self.joints = None if pupil.skeleton.names == self.skeleton.names else joints
        self.pupil = pupil

    def __call__(self, batch: PoseBatch) -> TeacherOutput:
        """What it says of a batch of the student's crops; nothing in it carries a gradient."""
        with torch.no_grad():
            images = resample(batch.image, self.model.input_size)
            if self.dtype is None:
                output = self.forward(images)
            else:
                mixed = self.dtype != torch.float32
                with torch.autocast(images.device.type, dtype=self.dtype if mixed else None, enabled=mixed):
                    output = self.forward(images)
            if self.unlabelled:
                sure = peak_confidence(output.heatmaps, softmax=self.floor == 0)
                output = output._replace(trust=sure)
            output = output._replace(heatmaps=reduced(output.heatmaps, self.pupil.heatmap_size))
            if self.joints is not None:
                output = in_order(self.joints, output, batch)
            if self.unlabelled and output.trust is not None:
                # labels, where a person has any, say which joints are there
                has = batch.labelled.any(dim=1, keepdim=True)
                known = 1.0 if output.known is None else output.known
                output = output._replace(trust=torch.where(has, batch.weights * known, output.trust))
            return output

    def move(self, fn: Callable[[Tensor], Tensor]) -> None:
        """Apply what the holder applies to its own tensors, such as a change of device."""
        self.model._apply(fn)

    def __deepcopy__(self, memo: dict[int, Any]) -> FrozenTeacher:
        """Itself: weight averaging copies the module that holds a teacher, and one teacher serves both."""
        return self


def floor_of(model: PoseModel) -> float:
    """Share of a map's peak under which its cells are noise: a softmax leaves none beside its peaks."""
    return 0.0 if getattr(model.head, "activation", "none") == "softmax" else FLOOR


def shared_joints(teacher: Any, pupil: PoseModel) -> list[int | None]:
    """For each of the student's joints the teacher's of the same name, None where it has none.

    Raises:
        DistilPoseError: if they share none.
    """
    joints = pupil.skeleton.matching(teacher.skeleton)
    if all(joint is None for joint in joints):
        raise DistilPoseError(
            f"The teacher's joints {list(teacher.skeleton.names)} and the student's {list(pupil.skeleton.names)} have no "
            "name in common: give a teacher of this kind of body."
        )
    return joints


def in_order(joints: Sequence[int | None], output: TeacherOutput, batch: PoseBatch) -> TeacherOutput:
    """A teacher's output with the student's K joints in the student's order.

    Joints the teacher does not know get an empty map and no trust; the others are trusted where they are labelled.

    Args:
        joints: for each of the student's joints the teacher's, None where it has none.
        output: of the teacher, in its own joints.
        batch: of N persons, in the student's joints.
    """
    order = torch.tensor([joint or 0 for joint in joints], device=output.heatmaps.device)
    known = output.heatmaps.new_tensor([joint is not None for joint in joints])
    tokens = output.keypoint_tokens
    trust = batch.weights if output.trust is None else output.trust[:, order]
    return TeacherOutput(
        output.heatmaps[:, order] * known[:, None, None],
        output.visual_tokens,
        None if tokens is None else tokens[:, order],
        trust * known,
        known,
    )


def peak_confidence(heatmaps: Tensor, softmax: bool) -> Tensor:
    """How sure maps (N, K, h, w) are of their joints: (N, K) in [0, 1].

    Of a softmax, whose peak is one however broad it is, the share in that peak: in the Gaussian through the peak and its four
    neighbours, of `BROADEST` cells at the most; 1 of any Gaussian that narrow. Of other maps the peak's height.
    """
    if not softmax:
        return heatmaps.amax(dim=(-2, -1)).clamp(0, 1)
    width = heatmaps.shape[-1] + 2
    logs = F.pad(heatmaps.clamp(min=1e-12).log(), (1, 1, 1, 1), mode="replicate").flatten(2)
    peak = heatmaps.flatten(2).argmax(dim=-1, keepdim=True)
    peak = (peak // (width - 2) + 1) * width + peak % (width - 2) + 1
    log_mass = math.log(2 * math.pi) + logs.gather(2, peak)
    for step in (1, width):
        before, at, after = (logs.gather(2, peak + way) for way in (-step, 0, step))
        # the second difference of a Gaussian's logarithm is -1 / variance, wherever within the cell its middle lies
        variance = 1 / (2 * at - before - after).clamp(min=BROADEST**-2)
        log_mass = log_mass + 0.5 * variance.log() + variance * (after - before).square() / 8
    return (log_mass.exp().squeeze(2) / heatmaps.sum(dim=(-2, -1))).clamp(0, 1)


def reduced(heatmaps: Tensor, size: Sequence[int]) -> Tensor:
    """Maps at another size; on the way to a smaller one each cell takes the highest around it, so that no peak is lost."""
    steps = [old // new for old, new in zip(heatmaps.shape[-2:], size, strict=True)]
    whole = all(new * step == old for new, step, old in zip(size, steps, heatmaps.shape[-2:], strict=True))
    if not whole or steps == [1, 1]:
        return resample(heatmaps, size)
    down, across = steps
    padded = F.pad(heatmaps, (across // 2, across - across // 2, down // 2, down - down // 2))
    pooled = F.max_pool2d(padded, steps)
    # beyond the last cell's middle there is half a cell more
    pooled = torch.cat([pooled[..., :-2, :], pooled[..., -2:, :].amax(dim=-2, keepdim=True)], dim=-2)
    return torch.cat([pooled[..., :-2], pooled[..., -2:].amax(dim=-1, keepdim=True)], dim=-1)


def resample(planes: Tensor, size: Sequence[int]) -> Tensor:
    """Images or maps (N, C, h, w) at another size, bilinear; place i of n goes to i m / n of m, as keypoints do."""
    if tuple(planes.shape[-2:]) == tuple(size):
        return planes
    height, width = planes.shape[-2:]
    rows = torch.arange(size[0], device=planes.device) * (height / size[0])
    columns = torch.arange(size[1], device=planes.device) * (width / size[1])
    # grid_sample's -1 and 1 are the middles of the first and the last place
    y, x = 2 * rows / max(1, height - 1) - 1, 2 * columns / max(1, width - 1) - 1
    grid = torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1).to(planes.dtype)
    return F.grid_sample(planes, grid.expand(len(planes), -1, -1, -1), padding_mode="border", align_corners=True)


def load_teacher(checkpoint: str | Path | None, **options: Any) -> FrozenTeacher:
    """The teacher in a checkpoint of this package (.ckpt or .safetensors).

    Args:
        checkpoint: the file, or what else `load_model` takes.
        **options: of `FrozenTeacher`.
    """
    advice = (
        "train one with `python -m distilpose.train model=teacher_stem` (or teacher_hrnet_w48, or an experiment's own, such as "
        "experiment=lspet_teacher) or convert the release's with `python -m distilpose.convert`, then pass "
        "teacher.checkpoint=FILE; loss=regression trains without a teacher."
    )
    if checkpoint is None:
        raise DistilPoseError(f"A distillation needs a teacher but teacher.checkpoint is not set: {advice}")
    try:
        checkpoint = local_file(checkpoint)
    except DistilPoseError as error:
        raise DistilPoseError(f"The teacher's checkpoint cannot be had: {error} Otherwise {advice}") from error
    model = load_model(checkpoint)
    if model.kind != "teacher":
        raise DistilPoseError(
            f"'{checkpoint}' holds the student {model.name}, but a teacher must give heat maps: {advice}"
        )
    return FrozenTeacher(model, **options)
