"""Heat maps and SimCC distributions of foreign networks as maps in the cells of a convention."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from distilpose.errors import DistilPoseError
from distilpose.skeleton import COCO, Skeleton
from distilpose.teachers.convention import Convention
from distilpose.teachers.heatmaps import peak_confidence
from distilpose.teachers.network import NetworkOutput

Rule = Literal["ratio", "udp"]
CELL = 4  # pixels of a cell of maps that are made from SimCC, as in the student's maps
BLUR = 1.2  # cells; RTMPose's peaks then have a deviation of 1.4 cells, and own teachers are trained with 2
MIN_CELLS = 4  # a smaller output is no map
NEAR = 8  # pixels around the highest bin of SimCC, three deviations of the distributions that such networks learn


def are_probabilities(outputs: Sequence[Tensor]) -> bool:
    """Whether maps (N, K, h, w), or each axis (N, K, bins) of SimCC, are distributions: not negative, with sums of one."""
    return all(
        bool((output >= 0).all()) and bool(((output.float().flatten(2).sum(-1) - 1).abs() < 1e-2).all())
        for output in outputs
    )


def read_heatmaps(maps: Tensor, probabilities: bool = False) -> NetworkOutput:
    """Raw maps (N, K, h, w); their height is the network's confidence, and so the trust.

    Distributions are scaled to a peak of one, and the trust is the share of the peak, as for softmax maps of this package.
    """
    maps = maps.float().clamp(min=0)
    if probabilities:
        maps = maps / maps.amax(dim=(-2, -1), keepdim=True).clamp(min=1e-12)
        return NetworkOutput(maps, peak_confidence(maps, softmax=True))
    return NetworkOutput(maps, maps.amax(dim=(-2, -1)).clamp(max=1))


def read_simcc(across: Tensor, down: Tensor, ratio: float, size: Sequence[int]) -> NetworkOutput:
    """Maps from SimCC (Li et al., ECCV 2022): the outer product of a distribution for each axis, in cells of 4 pixels.

    The distributions are blurred by `BLUR`: RTMPose's peaks have a deviation of 0.6 cells, too narrow to be sampled in other
    views without moving. The height of a map is the confidence that rtmlib states, the mean of both peaks. The decoding of the
    network's makers is the highest bin of each axis, without refinement.

    Args:
        across: (N, K, ratio W) values for x; bin i is pixel i / ratio.
        down: (N, K, ratio H) values for y.
        ratio: bins of a pixel, the split ratio.
        size: rows and columns of the maps.
    """
    across, down = across.float(), down.float()
    best = [axis.max(dim=-1) for axis in (across, down)]
    trust = ((best[0].values + best[1].values) / 2).clamp(0, 1)
    x, y = (
        axis.clamp(min=0) @ _to_cells(axis.shape[-1], ratio, count).to(axis)
        for axis, count in ((across, size[1]), (down, size[0]))
    )
    maps = y[..., :, None] * x[..., None, :]
    maps = maps / maps.amax(dim=(-2, -1), keepdim=True).clamp(min=1e-12) * trust[..., None, None]
    cells = torch.stack([axis.indices for axis in best], dim=-1).float() / (ratio * CELL)
    return NetworkOutput(maps, trust, cells=cells)


def scale_probabilities(axis: Tensor, ratio: float) -> Tensor:
    """Distributions (N, K, bins) scaled to a height that is their confidence: their share near the highest bin.

    Args:
        axis: distributions.
        ratio: bins of a pixel.
    """
    place = axis.argmax(-1, keepdim=True)
    near = (torch.arange(axis.shape[-1], device=axis.device) - place).abs() <= NEAR * ratio
    share = (axis * near).sum(-1, keepdim=True).clamp(max=1)
    return axis / axis.amax(-1, keepdim=True).clamp(min=1e-12) * share


def _to_cells(bins: int, ratio: float, count: int) -> Tensor:
    """(bins, count) share of each bin in each cell: a Gaussian around its place."""
    distance = torch.arange(bins, dtype=torch.float32)[:, None] / (ratio * CELL) - torch.arange(count)
    return torch.exp(-(distance**2) / (2 * BLUR**2))


def convention_of(
    outputs: Sequence[Tensor],
    input_size: tuple[int, int],
    rule: Rule,
    padding: float,
    where: str,
) -> tuple[Convention, float | None]:
    """The convention of outputs for a blank crop, and the split ratio of SimCC (None for heat maps).

    Args:
        outputs: one output (N, K, h, w), or two, (N, K, ratio W) and (N, K, ratio H).
        input_size: (H, W) of the crop.
        rule: ratio (cell = pixel / ratio of the sizes) or udp (the last cell is the last pixel), which is only the crop
            for SimCC.
        padding: factor on a person's box.
        where: the network, for messages.

    Raises:
        DistilPoseError: the shapes fit neither heat maps nor SimCC.
    """
    shapes = [tuple(output.shape) for output in outputs]
    height, width = input_size
    if len(shapes) == 1 and len(shapes[0]) == 4 and min(shapes[0][2:]) >= MIN_CELLS:
        size = (int(shapes[0][2]), int(shapes[0][3]))
        make = Convention.udp if rule == "udp" else Convention.by_ratio
        if abs(size[0] * width - size[1] * height) <= max(size):
            return make(input_size, size, padding), None
    if len(shapes) == 2 and len(shapes[0]) == len(shapes[1]) == 3 and shapes[0][:2] == shapes[1][:2]:
        ratio = shapes[0][2] / width
        if ratio >= 1 and ratio * height == shapes[1][2]:
            # as read_simcc draws them; the last cell of a crop that is no multiple of it is not whole
            size = (math.ceil(height / CELL), math.ceil(width / CELL))
            cell = (float(CELL), float(CELL))
            return Convention(input_size, size, cell, padding=padding, unbiased=rule == "udp"), ratio
    raise DistilPoseError(
        f"{where} gives outputs of {' and '.join(map(str, shapes))} for a crop of {height} x {width} (H x W): expected "
        "heat maps (N, joints, rows, columns) of its aspect, or SimCC (N, joints, r x width) and (N, joints, r x height)."
    )


HALPE_26 = (
    *COCO.names, "head", "neck", "hip", "left_big_toe", "right_big_toe", "left_small_toe", "right_small_toe", "left_heel",
    "right_heel",
)  # fmt: skip
_FEET = ("left_big_toe", "left_small_toe", "left_heel", "right_big_toe", "right_small_toe", "right_heel")
WHOLE_BODY = (
    *COCO.names, *_FEET, *(f"face_{k}" for k in range(68)),
    *(f"{side}_hand_{k}" for side in ("left", "right") for k in range(21)),
)  # fmt: skip
BODIES = {17: COCO.names, 26: HALPE_26, 133: WHOLE_BODY}


def skeleton_of(count: int, joints: Sequence[str] | None, where: str) -> Skeleton:
    """The skeleton of a network by its names, or by the number of its joints: 17 (COCO), 26 (Halpe), 133 (COCO-WholeBody).

    Args:
        count: number of the network's joints.
        joints: their names, if known.
        where: the network, for messages.

    Raises:
        DistilPoseError: the number of names differs, or there are none and the number says nothing.
    """
    if joints is not None and len(joints) != count:
        raise DistilPoseError(
            f"{where} gives {count} joints and teacher.joints has {len(joints)} names: name its joints in their order."
        )
    names = BODIES.get(count) if joints is None else tuple(joints)
    if names is None:
        raise DistilPoseError(
            f"{where} gives {count} joints, and their number does not say which (17, 26 and 133 do): pass "
            "teacher.joints=[nose,left_eye,…] in its order."
        )
    return Skeleton.from_names(names)
