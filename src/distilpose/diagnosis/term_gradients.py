"""Gradients of the terms of a student's loss, by the student's distance from the teacher and from the ground truth."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from distilpose.data.codec import decode_heatmaps
from distilpose.outputs import StudentOutput, TeacherOutput

# edges of the bins in cells; the last bin is open
EDGES = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0, 24.0, 32.0, float("inf"))


class TermGradients(NamedTuple):
    """Gradients of the loss terms with respect to the student's keypoints, for J joints.

    Attributes:
        cells: (J,) distance of the student from the teacher's peak, in heat-map cells.
        sigmas: (J,) the same distance in units of the student's sigmas, each axis by its own sigma.
        error: (J,) distance of the student from the truth, in heat-map cells.
        strength: by term, (J,) length of the gradient of the weighted term per cell. It is multiplied by N K, so that it
            does not depend on the batch size.
        towards: by term, (J,) cosine of the angle between the negative gradient and the direction to the peak.
    """

    cells: Tensor
    sigmas: Tensor
    error: Tensor
    strength: dict[str, Tensor]
    towards: dict[str, Tensor]


def gradients_of_terms(
    loss: nn.Module, student: StudentOutput, teacher: TeacherOutput, keypoints: Tensor, weights: Tensor
) -> TermGradients:
    """Gradients for all joints of a batch that have a weight and a peak in the teacher's map.

    Args:
        loss: returns scalars by name like `DistillationLoss`. Terms that do not depend on the keypoints are left out.
        student: output for N persons, without gradients.
        teacher: output for the same persons.
        keypoints: (N, K, 2) ground truth as a share of the crop.
        weights: (N, K) 1 for a labelled joint inside the crop, else 0.
    """
    rows, columns = teacher.heatmaps.shape[-2:]
    extent = keypoints.new_tensor([columns, rows])
    peak, height = decode_heatmaps(teacher.heatmaps)
    counted = (weights > 0) & (height > 0)
    to_peak = (peak - student.keypoints) * extent
    strength, towards = {}, {}
    with torch.enable_grad():
        predicted = student.keypoints.detach().requires_grad_()
        terms = loss(student._replace(keypoints=predicted), teacher, keypoints, weights)
        for name, value in terms.items():
            if name == "total" or not value.requires_grad:
                continue
            (gradient,) = torch.autograd.grad(value, predicted, retain_graph=True, allow_unused=True)
            if gradient is not None:
                descent = -gradient * weights.numel() / extent
                strength[name] = descent.norm(dim=-1)[counted]
                towards[name] = torch.cosine_similarity(descent, to_peak, dim=-1, eps=1e-20)[counted]
    error = (keypoints - student.keypoints) * extent
    cells, sigmas, error = (length.norm(dim=-1)[counted] for length in (to_peak, to_peak / student.sigmas, error))
    return TermGradients(cells, sigmas, error, strength, towards)


def concatenate_gradients(parts: list[TermGradients]) -> TermGradients:
    """Join the joints of several batches, on the CPU."""
    first = parts[0]
    return TermGradients(
        torch.cat([part.cells for part in parts]).cpu(),
        torch.cat([part.sigmas for part in parts]).cpu(),
        torch.cat([part.error for part in parts]).cpu(),
        {name: torch.cat([part.strength[name] for part in parts]).cpu() for name in first.strength},
        {name: torch.cat([part.towards[name] for part in parts]).cpu() for name in first.towards},
    )


def bin_by_distance(gradients: TermGradients, distance: Tensor) -> list[dict[str, Any]]:
    """Mean strength and direction of the gradients in the bins `EDGES` of a distance, without empty bins.

    Args:
        gradients: gradients of J joints.
        distance: (J,) distance of each joint: `gradients.cells` or `gradients.error`.

    Returns:
        For each bin `from` and `to` (None for the open bin), the number of `joints`, their mean `distance`, and
        `strength` and `towards` by term.
    """
    index = torch.bucketize(distance, torch.tensor(EDGES[1:-1]), right=True)
    rows = []
    for number in index.unique().tolist():
        chosen = index == number
        rows.append(
            {
                "from": EDGES[number],
                "to": EDGES[number + 1] if EDGES[number + 1] < float("inf") else None,
                "joints": int(chosen.sum()),
                "distance": distance[chosen].mean().item(),
                "strength": {name: values[chosen].mean().item() for name, values in gradients.strength.items()},
                "towards": {name: values[chosen].mean().item() for name, values in gradients.towards.items()},
            }
        )
    return rows
