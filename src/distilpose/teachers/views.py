"""A source that looks at each person several times: in quarter turns, and mirrored."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from distilpose.skeleton import Skeleton
from distilpose.teachers.base import Source, SourceOutput
from distilpose.teachers.sampling import between, highest_cells, in_cells_of, through
from distilpose.teachers.several import SeveralSources

# How fast a view loses its weight with the mean trust of its limbs: 0.1 below the best view, e^-2. Among 5, 10, 20 and 40, the
# values from 10 to 40 were within 0.5 PCK of each other for MoveNet on Leeds Sports.
SHARPNESS = 20.0
LIMBS = Skeleton.from_names(
    [f"{side}_{part}" for part in ("shoulder", "elbow", "wrist", "hip", "knee", "ankle") for side in ("left", "right")]
)
# Trust that a turned view must have beyond the photograph as it is, as most people stand. On Leeds Sports 0 to 0.05 are equal.
UPRIGHT = 0.05
NEAR = 2.0  # cells; a view's own decoding counts for a joint if it lies within this distance of the merged peak


class View(NamedTuple):
    """One look at a photograph.

    Attributes:
        quarters: number of quarter turns, counter-clockwise.
        mirrored: whether it is mirrored before it is turned.
    """

    quarters: int
    mirrored: bool

    def of_image(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The photograph (H, W, 3) in this view; no pixel is interpolated."""
        return np.ascontiguousarray(np.rot90(image[:, ::-1] if self.mirrored else image, self.quarters))

    def matrix(self, size: Sequence[int]) -> NDArray[np.float64]:
        """(2, 3) matrix from pixels of a photograph of (H, W) to pixels of this view."""
        height, width = size[0], size[1]
        matrix = np.eye(3)
        if self.mirrored:
            matrix[0] = -1, 0, width - 1
        for _ in range(self.quarters):
            matrix = np.array([[0.0, 1.0, 0.0], [-1.0, 0.0, width - 1.0], [0.0, 0.0, 1.0]]) @ matrix
            height, width = width, height
        return matrix[:2]

    def of_box(self, box: NDArray[np.float64], size: Sequence[int]) -> NDArray[np.float64]:
        """A box x, y, width, height in this view. As coordinates, edges are moved like pixels."""
        matrix = self.matrix(size)
        corners = np.array([box[:2], box[:2] + box[2:]]) @ matrix[:, :2].T + matrix[:, 2]
        start = corners.min(axis=0)
        return np.concatenate([start, corners.max(axis=0) - start])


class Views(Source):
    """The mean of a source's maps over several views of each person, weighted by how sure the source is in each.

    A turned or mirrored person costs a pass of the network. Quarter turns help networks that expect people upright: they find
    those who lie, hang or fall in the view in which they stand.

    Args:
        source: the source.
        quarter_turns: show each person in four turns. A source that turns them by itself (`Source.turns`) is not turned again.
        mirrored: show each view mirrored too.
        flip_order: for each of the source's joints the one in its place in a mirror image.
    """

    def __init__(
        self, source: Source, quarter_turns: bool, mirrored: bool, flip_order: Sequence[int] | None = None
    ) -> None:
        self.source = source
        self.name, self.skeleton, self.map_size = source.name, source.skeleton, source.map_size
        self.flip_order = list(source.skeleton.flip_order if flip_order is None else flip_order)
        quarters = 4 if quarter_turns and source.turns == 1 else 1
        self.views = [
            View(turn, mirror) for mirror in ((False, True) if mirrored else (False,)) for turn in range(quarters)
        ]
        limbs = [joint for joint in LIMBS.matching(source.skeleton) if joint is not None]
        self._limbs = limbs or list(range(source.skeleton.num_keypoints))  # faces and hands would outnumber the body
        self.about = {
            **source.about,
            "views": {"quarter_turns": quarters, "mirrored": mirrored, "sharpness": SHARPNESS, "upright": UPRIGHT},
        }

    def __call__(self, images: Sequence[NDArray[np.uint8]], boxes: NDArray[np.float64]) -> SourceOutput:
        """Heat maps of one person in each of N images, in the cells of the best view; see `Source`."""
        outputs = [self._look(view, images, boxes) for view in self.views]
        quality = np.stack([output.trust[:, self._limbs].mean(axis=1) for output in outputs])  # (V, N)
        quality -= UPRIGHT * np.array([[view.quarters > 0] for view in self.views])
        best = _best(outputs, quality.argmax(axis=0))
        weights = np.exp(SHARPNESS * (quality - quality.max(axis=0)))
        weights /= weights.sum(axis=0)
        maps, heights, trusts = np.zeros_like(best.heatmaps), np.zeros_like(best.trust), np.zeros_like(best.trust)
        for weight, output in zip(weights.astype(np.float32)[..., None], outputs, strict=True):
            moved = in_cells_of(best, self.map_size, output)
            maps += weight[..., None, None] * moved
            heights += weight * moved.max(axis=(2, 3))
            trusts += weight * output.trust
        # views that see a joint in different places lower its peak
        trust = trusts * (maps.max(axis=(2, 3)) / np.maximum(heights, 1e-6)).clip(0, 1)
        cells = None if best.cells is None else _merged_cells(best, outputs, weights, maps)
        return SourceOutput(maps, best.warps, trust, cells)

    def _look(self, view: View, images: Sequence[NDArray[np.uint8]], boxes: NDArray[np.float64]) -> SourceOutput:
        """The source's output for one view, with matrices from pixels of the photographs themselves."""
        sizes = [image.shape[:2] for image in images]
        there = np.stack([view.of_box(box, size) for box, size in zip(boxes, sizes, strict=True)])
        output = self.source([view.of_image(image) for image in images], there)
        to_view = np.tile(np.eye(3), (len(images), 1, 1))
        to_view[:, :2] = [view.matrix(size) for size in sizes]
        if view.mirrored:
            cells = None if output.cells is None else output.cells[:, self.flip_order]
            output = SourceOutput(
                output.heatmaps[:, self.flip_order], output.warps, output.trust[:, self.flip_order], cells
            )
        return output._replace(warps=output.warps @ to_view)


def _best(outputs: Sequence[SourceOutput], choice: NDArray[np.intp]) -> SourceOutput:
    """For each of N persons the output of the chosen view."""
    rows = np.arange(len(choice))
    cells = [output.cells for output in outputs if output.cells is not None]
    return SourceOutput(
        np.stack([output.heatmaps for output in outputs])[choice, rows],
        np.stack([output.warps for output in outputs])[choice, rows],
        np.stack([output.trust for output in outputs])[choice, rows],
        np.stack(cells)[choice, rows] if cells else None,
    )


def _merged_cells(
    best: SourceOutput, outputs: Sequence[SourceOutput], weights: NDArray[np.float64], maps: NDArray[np.float32]
) -> NDArray[np.float32]:
    """(N, K, 2) the mean of the views' own decodings near the merged peaks, and the highest cell where no view is near."""
    peaks = highest_cells(torch.from_numpy(np.ascontiguousarray(maps))).double().numpy()
    moved = np.stack([through(between(output.warps, best.warps), output.cells) for output in outputs])  # type: ignore[arg-type]
    near = np.linalg.norm(moved - peaks, axis=-1) <= NEAR
    shares = (weights[..., None] * near)[..., None]
    total = shares.sum(axis=0)
    mean = (shares * moved).sum(axis=0) / np.maximum(total, 1e-12)
    return np.where(total > 0, mean, peaks).astype(np.float32)


def in_views(source: Source, quarter_turns: bool, mirrored: bool, data: Skeleton) -> Source:
    """A source in several views; one of several looks at the views of each by itself.

    Args:
        source: the source.
        quarter_turns: see `Views`.
        mirrored: see `Views`.
        data: joints of the data set, whose pairs tell what a mirror exchanges.
    """
    if isinstance(source, SeveralSources) and (quarter_turns or mirrored):
        return SeveralSources([in_views(one, quarter_turns, mirrored, data) for one in source.sources], source.rule)
    views = Views(source, quarter_turns, mirrored, _mirrored_joints(source.skeleton, data))
    return views if len(views.views) > 1 else source


def _mirrored_joints(own: Skeleton, data: Skeleton) -> list[int]:
    """For each of a source's joints the one in its place in a mirror image: by the data's pairs, else by its own names.

    The data's come first as names need not tell them: a landmark of a face is called face_36.
    """
    joints, order = data.matching(own), list(own.flip_order)
    for joint, partner in zip(joints, data.flip_order, strict=True):
        if joint is not None and (other := joints[partner]) is not None:
            order[joint] = other
    return order
