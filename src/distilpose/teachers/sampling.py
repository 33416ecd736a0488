"""Sampling of heat maps on another grid of cells, without missing narrow peaks."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from distilpose.teachers.base import SourceOutput


def sample_maps(maps: Tensor, cells: Tensor, width: Tensor, size: Sequence[int], sigma: float) -> Tensor:
    """Sample maps (N, K, h, w) on the student's grid. Peaks narrower than `sigma` are widened to it at the same height.

    The maps are first sampled at the student's cells, between them and in a margin around them, finely enough to miss no
    peak. They are then blurred to the student's cells.

    Args:
        maps: the maps.
        cells: (N, 2, 3) float64 affine matrices from the student's cells to cells of the maps.
        width: (N, K) standard deviations of the peaks in cells of the maps (see `peak_width`).
        size: rows and columns of the student's map.
        sigma: least width of a peak in the student's cells; 0 does not change the maps.

    Returns:
        (N, K, *size) on the device of the maps.
    """
    scale = torch.linalg.det(cells[:, :, :2]).abs().sqrt()  # cells of the maps in one of the student's cells
    unblurred = width.to(cells).clamp(min=0.5) / scale[:, None]  # in the student's cells
    blur = (sigma**2 - unblurred**2).clamp(min=0).sqrt()
    fine, margin = 1, 0
    blurred = (blur > 0) & (width.to(cells) > 0)  # maps without a peak have a width of 0
    if bool(blurred.any()):
        # sampled every two standard deviations, a Gaussian's sum has an error of one per cent
        fine = min(8, max(1, math.ceil(float((0.5 / unblurred[blurred]).max()))))
        margin = math.ceil(3 * sigma)
    rows, columns = size
    y, x = (
        torch.arange(-margin * fine, (count - 1 + margin) * fine + 1, device=cells.device, dtype=torch.float32) / fine
        for count in (rows, columns)
    )
    grid = torch.stack([*torch.meshgrid(x, y, indexing="xy"), torch.ones(len(y), len(x)).to(y)], dim=-1)
    grid = torch.einsum("hwc,nxc->nhwx", grid.to(cells), cells)
    # for grid_sample, -1 and 1 are the centres of the first and the last cell
    last = grid.new_tensor([max(1, maps.shape[-1] - 1), max(1, maps.shape[-2] - 1)])
    sampled = F.grid_sample(maps, (2 * grid / last - 1).to(maps), padding_mode="zeros", align_corners=True)
    if margin == 0:
        return sampled
    # a blur lowers a Gaussian's peak by this factor
    height = (1 + (blur / unblurred) ** 2)[..., None, None].to(maps)
    down, across = (_blur(blur, at.to(blur), count).to(maps) for at, count in ((y, rows), (x, columns)))
    return down @ sampled @ across.mT * height


def in_cells_of(first: SourceOutput, size: Sequence[int], output: SourceOutput) -> NDArray[np.float32]:
    """The maps of an output in the cells of another one of the same persons.

    Args:
        first: the other output.
        size: rows and columns of its maps.
        output: the output whose maps are sampled.
    """
    if output is first:
        return output.heatmaps
    maps = torch.from_numpy(np.ascontiguousarray(output.heatmaps))
    cells = torch.from_numpy(between(first.warps, output.warps))
    return sample_maps(maps, cells, peak_width(maps), size, sigma=1.0).numpy()


def between(first: NDArray[np.float64], second: NDArray[np.float64]) -> NDArray[np.float64]:
    """(N, 2, 3) matrices from the target of matrices `first` to the target of matrices `second`."""
    turn = second[:, :, :2] @ np.linalg.inv(first[:, :, :2])
    return np.concatenate([turn, second[:, :, 2:] - turn @ first[:, :, 2:]], axis=2)


def through(matrices: NDArray[np.float64], points: NDArray) -> NDArray[np.float64]:
    """(N, K, 2) points through (N, 2, 3) affine matrices."""
    return np.einsum("nij,nkj->nki", matrices[:, :, :2], points) + matrices[:, None, :, 2]


def peak_width(maps: Tensor) -> Tensor:
    """(N, K) standard deviations in cells of the peaks of maps (N, K, h, w), read as Gaussians by their sum and height."""
    peaks = maps.amax(dim=(-2, -1))
    # cells below 10 % of the peak are noise; the others hold 90 % of a Gaussian's sum
    high = maps * (maps >= 0.1 * peaks[..., None, None])
    total = high.clamp(min=0).sum(dim=(-2, -1)) / 0.9
    return (total / (2 * math.pi * peaks.clamp(min=1e-6))).sqrt()


def highest_cells(maps: Tensor) -> Tensor:
    """(N, K, 2) x and y of the highest cells of maps (N, K, h, w)."""
    best = maps.flatten(2).argmax(-1)
    return torch.stack([best % maps.shape[-1], torch.div(best, maps.shape[-1], rounding_mode="floor")], -1)


def in_crop(pixels: Tensor, size: Sequence[int]) -> Tensor:
    """(N, K) whether points (N, K, 2) lie on a pixel of a crop of (H, W)."""
    return ((pixels >= 0) & (pixels <= pixels.new_tensor([size[1] - 1, size[0] - 1]))).all(-1)


def _blur(sigma: Tensor, at: Tensor, size: int) -> Tensor:
    """Weights (N, K, size, len(at)) that blur samples at positions `at` (in cells) to cells 0 to size - 1; their sum is 1."""
    distance = torch.arange(size, device=at.device, dtype=at.dtype)[:, None] - at
    weights = torch.exp(-0.5 * (distance / sigma[..., None, None].clamp(min=0.02)) ** 2)
    return weights / weights.sum(-1, keepdim=True)
