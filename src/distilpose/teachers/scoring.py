"""Predictions of a teacher in its own crops, so that the usual protocols tell whether it is worth learning from."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from pycocotools.coco import COCO
from rich.progress import track

from distilpose.data.coco import CocoKeypoints
from distilpose.data.codec import decode_heatmaps
from distilpose.evaluation.coco_ap import without_joints
from distilpose.evaluation.protocol import concatenate
from distilpose.outputs import Predictions
from distilpose.skeleton import Skeleton
from distilpose.teachers.base import Source, SourceOutput, match_joints
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
    joints = match_joints(source.skeleton, dataset.skeleton)
    order, known = [joint or 0 for joint in joints], np.array([joint is not None for joint in joints])
    sources = [in_views(source, quarter_turns, flip, dataset.skeleton) for flip in flips]
    parts: list[list[Predictions]] = []
    starts = range(0, len(people.annotation_ids), batch_size)
    for start in track(starts, title):
        chunk = people.take(slice(start, start + batch_size))
        images = [dataset.read_image(number) for number in chunk.image_ids.tolist()]
        middle = (chunk.boxes[:, :2] + chunk.boxes[:, 2:] / 2)[:, None]
        parts.append([])
        for one in sources:
            output = one(images, chunk.boxes)
            places = np.where(known[:, None], _joints_in_image(output)[:, order], middle)
            scores = np.where(known, output.trust[:, order], 0.0)
            parts[-1].append(
                Predictions(
                    torch.from_numpy(places).float(), torch.from_numpy(scores).float(), torch.from_numpy(chunk.image_ids),
                    torch.from_numpy(chunk.annotation_ids), torch.from_numpy(chunk.boxes).float(),
                    torch.from_numpy(chunk.scores),
                )
            )  # fmt: skip
    return [concatenate(kind) for kind in zip(*parts, strict=True)]


def known_truth(truth: COCO, source: Source, skeleton: Skeleton) -> COCO:
    """The annotations without the labels of joints that the teacher does not know, so that it is scored on its own joints."""
    joints = match_joints(source.skeleton, skeleton)
    unknown = [index for index, joint in enumerate(joints) if joint is None]
    return without_joints(truth, unknown) if unknown else truth


def _joints_in_image(output: SourceOutput) -> NDArray[np.float64]:
    """(N, K, 2) joints in image pixels: by the network's own decoding, else by DARK from the maps."""
    cells = output.cells
    if cells is None:
        places, _ = decode_heatmaps(torch.from_numpy(np.ascontiguousarray(output.heatmaps)))
        cells = places.double().numpy() * output.heatmaps.shape[:1:-1]
    identity = np.tile(np.eye(2, 3), (len(output.warps), 1, 1))
    return through(between(output.warps, identity), cells)
