"""Predictions of a teacher in its own crops, so that the usual protocols tell whether it is worth learning from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

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
from distilpose.teachers.several import between, in_cells_of


def predict_source(
    source: Source, dataset: CocoKeypoints, flips: Sequence[bool], title: str, batch_size: int = 16
) -> list[Predictions]:
    """Predictions for all persons of a data set, one for each kind of flip test.

    Joints that the teacher does not know are in the middle of the box, with a score of 0.

    Args:
        source: the teacher.
        dataset: persons in ground-truth or detector boxes.
        flips: whether to average with the mirror image, for each result.
        title: text beside the progress bar.
        batch_size: number of persons in one call of the source.
    """
    people = dataset.instances
    joints = match_joints(source.skeleton, dataset.skeleton)
    order, known = [joint or 0 for joint in joints], np.array([joint is not None for joint in joints])
    mirrored = _mirrored_joints(source.skeleton, dataset.skeleton, joints)
    parts: list[list[Predictions]] = []
    starts = range(0, len(people.annotation_ids), batch_size)
    for start in track(starts, title):
        chunk = people.take(slice(start, start + batch_size))
        images = [dataset.read_image(number) for number in chunk.image_ids.tolist()]
        middle = (chunk.boxes[:, :2] + chunk.boxes[:, 2:] / 2)[:, None]
        parts.append([])
        for output in _outputs(source, images, chunk.boxes, flips, mirrored):
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


def _mirrored_joints(own: Skeleton, data: Skeleton, joints: Sequence[int | None]) -> list[int]:
    """For each of a source's joints the one in its place in a mirror image: by the data's pairs, else by its own names.

    The data's come first as names need not tell them: a landmark of a face is called face_36.
    """
    order = list(own.flip_order)
    for joint, partner in zip(joints, data.flip_order, strict=True):
        if joint is not None and (other := joints[partner]) is not None:
            order[joint] = other
    return order


def _outputs(
    source: Source,
    images: Sequence[NDArray[np.uint8]],
    boxes: NDArray[np.float64],
    flips: Sequence[bool],
    order: Sequence[int],
) -> Iterator[SourceOutput]:
    """The output for each kind of flip test, from one or two runs; `order` as in `_mirrored_joints`."""
    straight = source(images, boxes)
    mirrored = _mirrored(source, images, boxes, order) if any(flips) else straight
    for flip in flips:
        yield _average(source, straight, mirrored) if flip else straight


def _mirrored(
    source: Source, images: Sequence[NDArray[np.uint8]], boxes: NDArray[np.float64], order: Sequence[int]
) -> SourceOutput:
    """The output for the mirror images, with sides exchanged, and matrices from pixels of the images themselves."""
    widths = np.array([image.shape[1] for image in images], dtype=np.float64)
    there = boxes.copy()
    # as coordinates, edges are mirrored like pixels: at the last pixel's centre
    there[:, 0] = widths - 1 - boxes[:, 0] - boxes[:, 2]
    output = source([np.ascontiguousarray(image[:, ::-1]) for image in images], there)
    mirror = np.tile(np.diag([-1.0, 1.0, 1.0]), (len(widths), 1, 1))
    mirror[:, 0, 2] = widths - 1
    cells = None if output.cells is None else output.cells[:, order]
    return SourceOutput(output.heatmaps[:, order], output.warps @ mirror, output.trust[:, order], cells)


def _average(source: Source, one: SourceOutput, other: SourceOutput) -> SourceOutput:
    """The mean of two outputs for the same persons, in the cells of the first."""
    heatmaps = _mean(one.heatmaps, in_cells_of(one, source.map_size, other))
    cells = None
    if one.cells is not None and other.cells is not None:
        back = between(other.warps, one.warps)
        cells = _mean(one.cells, _through(back, other.cells))
    return SourceOutput(heatmaps, one.warps, _mean(one.trust, other.trust), cells)


def _mean(one: NDArray, other: NDArray) -> NDArray[np.float32]:
    return ((one + other) / 2).astype(np.float32)


def _joints_in_image(output: SourceOutput) -> NDArray[np.float64]:
    """(N, K, 2) joints in image pixels: by the network's own decoding, else by DARK from the maps."""
    cells = output.cells
    if cells is None:
        places, _ = decode_heatmaps(torch.from_numpy(np.ascontiguousarray(output.heatmaps)))
        cells = places.double().numpy() * output.heatmaps.shape[:1:-1]
    identity = np.tile(np.eye(2, 3), (len(output.warps), 1, 1))
    return _through(between(output.warps, identity), cells)


def _through(matrices: NDArray[np.float64], points: NDArray) -> NDArray[np.float64]:
    """(N, K, 2) points through (N, 2, 3) affine matrices."""
    return np.einsum("nij,nkj->nki", matrices[:, :, :2], points) + matrices[:, None, :, 2]
