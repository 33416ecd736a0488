"""Mean-pose baseline: the mean training pose in every box. Any model must be better."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from distilpose.data.geometry import region_of_box
from distilpose.outputs import Predictions

if TYPE_CHECKING:
    from distilpose.data.coco import CocoKeypoints

MEAN_POSE = "mean training pose"  # its name in tables


def mean_pose(dataset: CocoKeypoints) -> Tensor:
    """(K, 2) float64 mean of the labelled joints in [0, 1] of their crops; the centre for a joint without labels."""
    corner, size = _crops(dataset)
    people = dataset.instances
    places = (torch.from_numpy(people.keypoints).double() - corner) / size
    labelled = torch.from_numpy(people.labelled)
    count = labelled.sum(0)[:, None]
    total = torch.where(labelled[..., None], places, 0.0).sum(0)
    return torch.where(count > 0, total / count.clamp(min=1), 0.5)


def predict_mean_pose(pose: Tensor, dataset: CocoKeypoints) -> Predictions:
    """Predict the same pose, (K, 2) in [0, 1] of the crop, for every person; all scores are 1."""
    corner, size = _crops(dataset)
    people = dataset.instances
    return Predictions(
        (corner + pose * size).float(),
        torch.ones(len(people.boxes), len(pose)),
        torch.from_numpy(people.image_ids),
        torch.from_numpy(people.annotation_ids),
        torch.from_numpy(people.boxes).float(),
        torch.from_numpy(people.scores),
    )


def _crops(dataset: CocoKeypoints) -> tuple[Tensor, Tensor]:
    """Top-left corner and size of every person's crop, both (N, 1, 2) float64 image pixels."""
    boxes = dataset.instances.boxes
    paddings = np.broadcast_to(dataset.padding, len(boxes)).tolist()  # a mixture has one for each person
    regions = [region_of_box(box, dataset.input_size, one) for box, one in zip(boxes, paddings, strict=True)]
    centre, size = (torch.from_numpy(np.stack(field)).double()[:, None] for field in zip(*regions, strict=True))
    return centre - size / 2, size
