"""The check of a teacher's accuracy before a training starts."""

from __future__ import annotations

import math

import torch
from lightning.pytorch.utilities import move_data_to_device
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Subset

from distilpose.data.codec import decode_heatmaps
from distilpose.errors import DistilPoseError
from distilpose.outputs import PoseBatch
from distilpose.teachers.base import Teacher

BATCH_SIZE = 32


def check_teacher(
    teacher: Teacher,
    dataset: Dataset,
    persons: int = 300,
    device: torch.device | str = "cpu",
) -> dict[str, float]:
    """Raise an error for a teacher whose heat maps are out of range or whose accuracy is near chance.

    Distilling from a bad teacher fails silently: the losses fall, and the student is worse than one trained without. A
    prediction is correct within 5 % of the crop's longer side. Chance is the accuracy of the mean pose of the same persons.

    Args:
        teacher: a teacher that reads images, on its device.
        dataset: validation persons, each a `PoseBatch`.
        persons: number of persons used, evenly spread over the data set.
        device: device of the teacher.

    Returns:
        accuracy, chance, the number of joints, the lowest and highest heat-map value, and the median peak.

    Raises:
        DistilPoseError: the teacher fails the check. The message names the figures and the way to skip the check.
    """
    count = min(len(dataset), persons)  # type: ignore[arg-type]
    spread = torch.linspace(0, len(dataset) - 1, count).long().tolist()  # type: ignore[arg-type]
    collected: tuple[list[Tensor], ...] = ([], [], [], [])  # predictions, peaks, keypoints, weights
    extremes: list[Tensor] = []
    for batch in DataLoader(Subset(dataset, spread), BATCH_SIZE):
        batch = move_data_to_device(PoseBatch(*batch), torch.device(device))
        output = teacher(batch)
        heatmaps = output.heatmaps.float()
        extremes.append(torch.stack(heatmaps.aminmax()).cpu())
        keypoints, peak = decode_heatmaps(heatmaps)
        weights = batch.weights if output.trust is None else batch.weights * (output.trust > 0)
        for values, value in zip(collected, (keypoints, peak, batch.keypoints, weights), strict=True):
            values.append(value.cpu())
    lowest, highest = torch.stack(extremes).unbind(1)
    predicted, peaks, truth, weight = map(torch.cat, collected)
    mean_pose = (truth * weight[..., None]).sum(0) / weight.sum(0).clamp(min=1)[:, None]
    size = teacher.student.input_size
    figures = {
        "accuracy": _accuracy(predicted, truth, weight, size),
        "chance": _accuracy(mean_pose.expand_as(truth), truth, weight, size),
        "lowest": lowest.min().item(),  # one value that is no number makes this one none
        "highest": highest.max().item(),
        "joints": weight.sum().item(),
        "median_peak": peaks[weight > 0].median().item() if (weight > 0).any() else float("nan"),
    }
    _check_figures(figures, count)
    return figures


def describe_check(teacher: Teacher, dataset: Dataset, persons: int, device: torch.device | str) -> str:
    """Check a teacher as `check_teacher` does; its figures in one line."""
    figures = check_teacher(teacher, dataset, persons, device)
    return (
        f"Teacher {teacher.name}: {figures['accuracy']:.1%} of validation joints within 5 % of the crop "
        f"(mean pose {figures['chance']:.1%}), median peak {figures['median_peak']:.2f}"
    )


def least_accuracy(chance: float) -> float:
    """Accuracy that a teacher needs: 1.25 times the mean pose's, or halfway from the mean pose's to 1 if that is less."""
    return min(1.25 * chance, (1 + chance) / 2)


def _accuracy(predicted: Tensor, truth: Tensor, weight: Tensor, input_size: tuple[int, int]) -> float:
    """Share of labelled joints predicted within 5 % of the crop's longer side."""
    extent = truth.new_tensor([input_size[1], input_size[0]])
    correct = ((predicted - truth) * extent).norm(dim=-1) <= 0.05 * max(input_size)
    return ((correct * weight).sum() / weight.sum().clamp(min=1)).item()


def _check_figures(figures: dict[str, float], count: int) -> None:
    """Raise an error if the heat maps are out of range or the accuracy is near chance."""
    if not figures["joints"] and math.isfinite(figures["highest"]):
        raise DistilPoseError(
            f"None of {count} validation persons has a label at a joint that the teacher knows, so it cannot be checked: give "
            "validation persons with such labels, or pass teacher.check=false."
        )
    way_out = "Train it longer or use another, or pass teacher.check=false to distil from it regardless."
    if not (figures["lowest"] >= -1 and figures["highest"] <= 2 and figures["median_peak"] >= 0.01):
        raise DistilPoseError(
            f"The teacher's heat maps on {count} validation persons range from {figures['lowest']:.3g} to "
            f"{figures['highest']:.3g} with a median peak of {figures['median_peak']:.3g}; about 0 to 1 and a peak near 1 are "
            f"expected. {way_out}"
        )
    # two standard errors, so that a handful of joints does not pass by luck
    likely = max(figures["chance"], 0.02)
    error = math.sqrt(likely * (1 - likely) / max(1.0, figures["joints"]))
    if figures["accuracy"] < least_accuracy(figures["chance"]) + 2 * error:
        raise DistilPoseError(
            f"The teacher is near chance: {figures['accuracy']:.1%} of the joints of {count} validation persons are within 5 % "
            f"of the crop, and {figures['chance']:.1%} for the mean pose. {way_out}"
        )
