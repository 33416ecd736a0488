"""Joints from heat maps by the decoding of UDP and ViTPose."""

from __future__ import annotations

import math

import torch
from torch import Tensor

SIGMA, REACH = 0.8, 5  # cells; of the Gaussian, and of its kernel of 11 cells to each side
LOWEST, HIGHEST = 0.001, 50.0  # values outside are clamped before the logarithm is taken
EPSILON = torch.finfo(torch.float32).eps


def decode_udp(heatmaps: Tensor) -> Tensor:
    """Joints by the highest cell and one Newton step of DARK on the smoothed map, as in UDP (Huang et al., CVPR 2020).

    It equals the decoding of ViTPose's authors and of `transformers`. That of `distilpose.data.codec` differs: it smooths more,
    takes differences over two cells and does not refine at the border.

    Args:
        heatmaps: (N, K, h, w) as the network gives them, with negative values.

    Returns:
        (N, K, 2) float32 x and y in cells; (-1, -1) for a map without a positive value.
    """
    height, width = heatmaps.shape[-2:]
    # float64 for the Hessian of flat peaks, which Apple's GPUs lack
    maps = heatmaps if heatmaps.device.type == "mps" else heatmaps.double()
    scores, best = heatmaps.flatten(-2).max(dim=-1)
    cell = torch.stack([best % width, torch.div(best, width, rounding_mode="floor")], dim=-1)

    # the smoothed map at the highest cell and its eight neighbours; a cell beyond the border is the border's
    around = torch.arange(-1, 2, device=maps.device)
    columns = (cell[..., :1] + around).clamp(0, width - 1)
    rows = (cell[..., 1:] + around).clamp(0, height - 1)
    smooth = _blur(height, maps)[rows] @ maps @ _blur(width, maps)[columns].mT  # (N, K, 3, 3)
    log = smooth.clamp(LOWEST, HIGHEST).log()

    left, centre, right = log[..., 1, :].unbind(-1)
    above, _, below = log[..., :, 1].unbind(-1)
    gx, gy = (right - left) / 2, (below - above) / 2
    hxx, hyy = right - 2 * centre + left, below - 2 * centre + above
    hxy = (log[..., 2, 2] - right - below + 2 * centre - left - above + log[..., 0, 0]) / 2
    # as published, so that a flat map has a step of 0
    hxx, hyy = hxx + EPSILON, hyy + EPSILON
    step = torch.stack([hyy * gx - hxy * gy, hxx * gy - hxy * gx], dim=-1) / (hxx * hyy - hxy**2)[..., None]
    return torch.where(scores[..., None] > 0, cell - step, -torch.ones_like(step)).float()


def _blur(size: int, like: Tensor) -> Tensor:
    """(size, size) matrix that smooths an axis; cells beyond the border mirror those within, the border's cell included."""
    taps = [math.exp(-(shift**2) / (2 * SIGMA**2)) for shift in range(-REACH, REACH + 1)]
    matrix = torch.zeros(size, size, dtype=like.dtype)
    for shift, tap in enumerate(taps, -REACH):
        at = (torch.arange(size) + shift) % (2 * size)
        matrix[torch.arange(size), torch.minimum(at, 2 * size - 1 - at)] += tap / sum(taps)
    return matrix.to(like.device)
