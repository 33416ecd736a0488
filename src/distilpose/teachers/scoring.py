"""Predictions of a teacher in its own crops, so that the usual protocols tell whether it is worth learning from."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import track

from distilpose.data.coco import CocoKeypoints
from distilpose.data.codec import decode_heatmaps
from distilpose.evaluation.known_joints import KnownJoints
from distilpose.evaluation.protocol import concatenate
from distilpose.outputs import Predictions
from distilpose.teachers.base import Source, SourceOutput
from distilpose.teachers.sampling import between, through
from distilpose.teachers.views import in_views


def predict_source(
    source: Source,
    dataset: CocoKeypoints,
    flips: Sequence[bool],
    title: str,
    quarter_turns: bool = False,
    batch_size: int = 16,
) -> list[Predictions]:
    """Predictions for all persons of a data set, one for each kind of flip test.

    Joints that the teacher does not know are in the middle of the box, with a score of 0.

    Args:
        source: the teacher.
        dataset: persons in ground-truth or detector boxes.
        flips: whether to average with the mirror image, for each result.
        title: text beside the progress bar.
        quarter_turns: average each person's four turns, weighted by how sure the teacher is (see `Views`).
        batch_size: number of persons in one call of the source.
    """
    people = dataset.instances
    known = KnownJoints(source.skeleton, dataset.skeleton, source.name)
    sources = [in_views(source, quarter_turns, flip, dataset.skeleton) for flip in flips]
    parts: list[list[Predictions]] = []
    starts = range(0, len(people.annotation_ids), batch_size)
    for start in track(starts, title):
        chunk = people.take(slice(start, start + batch_size))
        images = [dataset.read_image(number) for number in chunk.image_ids.tolist()]
        boxes, scores = torch.from_numpy(chunk.boxes).float(), torch.from_numpy(chunk.scores)
        image_ids, annotation_ids = torch.from_numpy(chunk.image_ids), torch.from_numpy(chunk.annotation_ids)
        parts.append([])
        for one in sources:
            output = one(images, chunk.boxes)
            keypoints, trust = (
                torch.from_numpy(_joints_in_image(output)).float(),
                torch.from_numpy(output.trust).float(),
            )
            found = Predictions(keypoints, trust, image_ids, annotation_ids, boxes, scores)
            parts[-1].append(known.of(found))
    return [concatenate(kind) for kind in zip(*parts, strict=True)]


def _joints_in_image(output: SourceOutput) -> NDArray[np.float64]:
    """(N, K, 2) joints in image pixels: by the network's own decoding, else by DARK from the maps."""
    cells = output.cells
    if cells is None:
        places, _ = decode_heatmaps(torch.from_numpy(np.ascontiguousarray(output.heatmaps)))
        cells = places.double().numpy() * output.heatmaps.shape[:1:-1]
    identity = np.tile(np.eye(2, 3), (len(output.warps), 1, 1))
    return through(between(output.warps, identity), cells)
