"""A frozen teacher, and the check that it is worth learning from."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.utilities import move_data_to_device
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Subset

from distilpose.data.codec import decode_heatmaps
from distilpose.errors import DistilPoseError
from distilpose.models import PoseModel, load_model
from distilpose.outputs import PoseBatch, TeacherOutput

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
    """

    def __init__(
        self,
        model: PoseModel,
        compile: bool = False,
        precision: str | int | None = None,
        check: bool = True,
        check_persons: int = 300,
    ):
        precision = None if precision is None else str(precision)
        if precision not in PRECISIONS:
            raise DistilPoseError(f"teacher.precision={precision} must be null, 32, bf16 or 16.")
        self.model = model.eval().requires_grad_(False)
        self.dtype = PRECISIONS[precision]
        self.forward: Callable[[Tensor], TeacherOutput] = torch.compile(self.model) if compile else self.model
        self.check = check
        self.check_persons = check_persons

    def __call__(self, images: Tensor) -> TeacherOutput:
        """The teacher's output for (N, 3, H, W) normalised crops; nothing in it carries a gradient."""
        with torch.no_grad():
            if self.dtype is None:
                return self.forward(images)
            mixed = self.dtype != torch.float32
            with torch.autocast(images.device.type, dtype=self.dtype if mixed else None, enabled=mixed):
                return self.forward(images)

    def move(self, fn: Callable[[Tensor], Tensor]) -> None:
        """Apply what the holder applies to its own tensors, such as a change of device."""
        self.model._apply(fn)

    def __deepcopy__(self, memo: dict[int, Any]) -> FrozenTeacher:
        """Itself: weight averaging copies the module that holds a teacher, and one teacher serves both."""
        return self


def load_teacher(checkpoint: str | Path | None, **options: Any) -> FrozenTeacher:
    """The teacher in a checkpoint of this package (.ckpt or .safetensors).

    Args:
        checkpoint: the file.
        **options: of `FrozenTeacher`.
    """
    advice = (
        "train one with `python -m distilpose.train model=teacher_stem` (or teacher_hrnet_w48) or convert the release's "
        "with `python -m distilpose.convert`, then pass teacher.checkpoint=FILE; loss=regression trains without a teacher."
    )
    if checkpoint is None:
        raise DistilPoseError(f"A distillation needs a teacher but teacher.checkpoint is not set: {advice}")
    if not Path(checkpoint).is_file():
        raise DistilPoseError(f"The teacher's checkpoint '{checkpoint}' does not exist: {advice}")
    model = load_model(checkpoint)
    if model.kind != "teacher":
        raise DistilPoseError(
            f"'{checkpoint}' holds the student {model.name}, but a teacher must give heat maps: {advice}"
        )
    return FrozenTeacher(model, **options)


def check_teacher(teacher: FrozenTeacher, dataset: Dataset, batch_size: int = 32) -> dict[str, float]:
    """Refuse a teacher whose heat maps are out of range or whose accuracy is near chance.

    Distilling from a bad teacher fails silently: the losses fall and the student is worse than without. A prediction
    counts as right within 5 % of the crop's longer side; chance is the answer that never looks, the mean pose of the
    same persons.

    Args:
        teacher: on the device it will run on.
        dataset: validation persons, each a `PoseBatch`; `teacher.check_persons` of them, evenly spread, are looked at.
        batch_size: crops a forward pass.

    Returns:
        accuracy, chance, the number of joints, the lowest and highest heat-map value, and the median peak.

    Raises:
        DistilPoseError: saying what is wrong and how to go on all the same.
    """
    count = min(len(dataset), teacher.check_persons)  # type: ignore[arg-type]
    spread = torch.linspace(0, len(dataset) - 1, count).long().tolist()  # type: ignore[arg-type]
    device = next(teacher.model.parameters()).device
    kept: tuple[list[Tensor], ...] = ([], [], [], [])  # predictions, peaks, keypoints, weights
    lowest, highest = float("inf"), float("-inf")
    for batch in DataLoader(Subset(dataset, spread), batch_size):
        batch = move_data_to_device(PoseBatch(*batch), device)
        heatmaps = teacher(batch.image).heatmaps.float()
        lowest, highest = min(lowest, heatmaps.min().item()), max(highest, heatmaps.max().item())
        place, peak = decode_heatmaps(heatmaps)
        for collected, value in zip(kept, (place, peak, *batch[1:3]), strict=True):
            collected.append(value.cpu())
    predicted, peaks, truth, weight = map(torch.cat, kept)
    mean_pose = (truth * weight[..., None]).sum(0) / weight.sum(0).clamp(min=1)[:, None]
    figures = {
        "accuracy": _share_right(predicted, truth, weight, teacher.model.input_size),
        "chance": _share_right(mean_pose.expand_as(truth), truth, weight, teacher.model.input_size),
        "lowest": lowest,
        "highest": highest,
        "joints": weight.sum().item(),
        "median_peak": peaks[weight > 0].median().item() if (weight > 0).any() else float("nan"),
    }
    _judge(figures, count)
    return figures


def _share_right(predicted: Tensor, truth: Tensor, weight: Tensor, input_size: tuple[int, int]) -> float:
    """Share of labelled joints whose prediction is within 5 % of the crop's longer side."""
    extent = truth.new_tensor([input_size[1], input_size[0]])
    right = ((predicted - truth) * extent).norm(dim=-1) <= 0.05 * max(input_size)
    return ((right * weight).sum() / weight.sum().clamp(min=1)).item()


def _judge(figures: dict[str, float], count: int) -> None:
    """Raise unless the figures are those of a teacher worth learning from."""
    way_out = "Train it longer or take another, or pass teacher.check=false to distil from it all the same."
    if not (figures["lowest"] >= -1 and figures["highest"] <= 2 and figures["median_peak"] >= 0.01):
        raise DistilPoseError(
            f"The teacher's heat maps on {count} validation persons span {figures['lowest']:.3g} to "
            f"{figures['highest']:.3g} with a median peak of {figures['median_peak']:.3g}, where about 0 to 1 and a peak "
            f"near 1 are expected. {way_out}"
        )
    # two standard errors keep a handful of joints from passing by luck
    likely = max(figures["chance"], 0.02)
    error = math.sqrt(likely * (1 - likely) / max(1.0, figures["joints"]))
    if figures["accuracy"] < 1.25 * figures["chance"] + 2 * error:
        raise DistilPoseError(
            f"The teacher is near chance: {figures['accuracy']:.1%} of the joints of {count} validation persons are within "
            f"5 % of the crop, and the mean pose alone has {figures['chance']:.1%}. {way_out}"
        )
