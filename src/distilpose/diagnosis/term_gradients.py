"""Where each term of a student's loss can pull: its gradient by how far the student is from its teacher and the truth."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from distilpose.data.codec import decode_heatmaps
from distilpose.outputs import StudentOutput, TeacherOutput

# cells; the last bin is open
EDGES = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0, 24.0, 32.0, float("inf"))


class Pull(NamedTuple):
    """J joints: how far the student is from the teacher's peak, and which term of the loss pulls it how strongly.

    Attributes:
        cells: (J,) distance to the peak in heat-map cells.
        sigmas: (J,) the same in the student's own sigmas, along each axis by that axis' sigma.
        error: (J,) distance to the truth in heat-map cells.
        strength: by term, (J,) length of the gradient of the joint's part of the weighted term, per cell. A joint's
            part is N K times what it adds to the loss of a batch, so that it does not depend on the batch's size.
        towards: by term, (J,) cosine of the angle between the pull and the direction to the teacher's peak.
    """

    cells: Tensor
    sigmas: Tensor
    error: Tensor
    strength: dict[str, Tensor]
    towards: dict[str, Tensor]


def pull_of_terms(
    loss: nn.Module, student: StudentOutput, teacher: TeacherOutput, keypoints: Tensor, weights: Tensor
) -> Pull:
    """The pull on every joint of a batch that has a weight and a peak in the teacher's map.

    Args:
        loss: gives scalars by name as `DistillationLoss` does; terms that do not reach the keypoints are left out.
        student: of N persons, without gradients.
        teacher: of the same persons.
        keypoints: (N, K, 2) ground truth as a share of the crop.
        weights: (N, K) 1 for a labelled joint inside the crop, else 0.
    """
    rows, columns = teacher.heatmaps.shape[-2:]
    extent = keypoints.new_tensor([columns, rows])
    peak, height = decode_heatmaps(teacher.heatmaps)
    counted = (weights > 0) & (height > 0)
    way = (peak - student.keypoints) * extent
    strength, towards = {}, {}
    with torch.enable_grad():
        place = student.keypoints.detach().requires_grad_()
        terms = loss(student._replace(keypoints=place), teacher, keypoints, weights)
        for name, value in terms.items():
            if name == "total" or not value.requires_grad:
                continue
            (gradient,) = torch.autograd.grad(value, place, retain_graph=True, allow_unused=True)
            if gradient is not None:
                pull = -gradient * weights.numel() / extent
                strength[name] = pull.norm(dim=-1)[counted]
                towards[name] = torch.cosine_similarity(pull, way, dim=-1, eps=1e-20)[counted]
    error = (keypoints - student.keypoints) * extent
    cells, sigmas, error = (length.norm(dim=-1)[counted] for length in (way, way / student.sigmas, error))
    return Pull(cells, sigmas, error, strength, towards)


def concatenate_pulls(parts: list[Pull]) -> Pull:
    """The joints of several batches as one, on the CPU."""
    first = parts[0]
    return Pull(
        torch.cat([part.cells for part in parts]).cpu(),
        torch.cat([part.sigmas for part in parts]).cpu(),
        torch.cat([part.error for part in parts]).cpu(),
        {name: torch.cat([part.strength[name] for part in parts]).cpu() for name in first.strength},
        {name: torch.cat([part.towards[name] for part in parts]).cpu() for name in first.towards},
    )


def pull_by_distance(pull: Pull, distance: Tensor, edges: tuple[float, ...] = EDGES) -> list[dict[str, Any]]:
    """Mean strength and direction of every term's pull in bins of a distance; empty bins are left out.

    Args:
        pull: of J joints.
        distance: (J,) to sort them by: `pull.cells` or `pull.error`.
        edges: of the bins, from 0 to infinity.

    Returns:
        Of each bin `from` and `to` (None where it is open), `joints`, their mean `distance`, and by term `strength` and
        `towards`.
    """
    index = torch.bucketize(distance, torch.tensor(edges[1:-1]), right=True)
    rows = []
    for number in index.unique().tolist():
        chosen = index == number
        rows.append(
            {
                "from": edges[number],
                "to": edges[number + 1] if edges[number + 1] < float("inf") else None,
                "joints": int(chosen.sum()),
                "distance": distance[chosen].mean().item(),
                "strength": {name: values[chosen].mean().item() for name, values in pull.strength.items()},
                "towards": {name: values[chosen].mean().item() for name, values in pull.towards.items()},
            }
        )
    return rows
