"""Operations on a teacher's heat maps: their confidence, and their size."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

# in cells; a softmax is trained on Gaussians of 2 cells by default, and a much broader map does not locate the joint
MAX_SIGMA = 3.0


def peak_confidence(heatmaps: Tensor, softmax: bool) -> Tensor:
    """Confidence (N, K) in [0, 1] of maps (N, K, h, w).

    A softmax map is scaled to a peak of one, so the height of its peak is not a confidence. Its confidence is the share of the
    map's sum that lies in the peak: in the Gaussian through the highest cell and its four neighbours, with a sigma of at most
    `MAX_SIGMA`. It is 1 for every Gaussian up to that sigma. For other maps the confidence is the height of the peak.
    """
    if not softmax:
        return heatmaps.amax(dim=(-2, -1)).clamp(0, 1)
    width = heatmaps.shape[-1] + 2
    logs = F.pad(heatmaps.clamp(min=1e-12).log(), (1, 1, 1, 1), mode="replicate").flatten(2)
    peak = heatmaps.flatten(2).argmax(dim=-1, keepdim=True)
    peak = (peak // (width - 2) + 1) * width + peak % (width - 2) + 1
    log_mass = math.log(2 * math.pi) + logs.gather(2, peak)
    for step in (1, width):
        before, at, after = (logs.gather(2, peak + way) for way in (-step, 0, step))
        # the second difference of a Gaussian's logarithm is -1 / variance, for any position of the mean within the cell
        variance = 1 / (2 * at - before - after).clamp(min=MAX_SIGMA**-2)
        log_mass = log_mass + 0.5 * variance.log() + variance * (after - before).square() / 8
    return (log_mass.exp().squeeze(2) / heatmaps.sum(dim=(-2, -1))).clamp(0, 1)


def resize_heatmaps(heatmaps: Tensor, size: Sequence[int]) -> Tensor:
    """Resize maps. If the size falls by whole factors, each cell takes the maximum around it, so that no peak is lost."""
    steps = [old // new for old, new in zip(heatmaps.shape[-2:], size, strict=True)]
    divisible = all(new * step == old for new, step, old in zip(size, steps, heatmaps.shape[-2:], strict=True))
    if not divisible or steps == [1, 1]:
        return resample(heatmaps, size)
    down, across = steps
    padded = F.pad(heatmaps, (across // 2, across - across // 2, down // 2, down - down // 2))
    pooled = F.max_pool2d(padded, steps)
    # the half cell beyond the centre of the last cell belongs to the last cell
    pooled = torch.cat([pooled[..., :-2, :], pooled[..., -2:, :].amax(dim=-2, keepdim=True)], dim=-2)
    return torch.cat([pooled[..., :-2], pooled[..., -2:].amax(dim=-1, keepdim=True)], dim=-1)


def resample(planes: Tensor, size: Sequence[int]) -> Tensor:
    """Resample images or maps (N, C, h, w) bilinearly. Position i of n becomes i m / n of m, the rule of keypoints."""
    if tuple(planes.shape[-2:]) == tuple(size):
        return planes
    height, width = planes.shape[-2:]
    rows = torch.arange(size[0], device=planes.device) * (height / size[0])
    columns = torch.arange(size[1], device=planes.device) * (width / size[1])
    # for grid_sample, -1 and 1 are the centres of the first and the last position
    y, x = 2 * rows / max(1, height - 1) - 1, 2 * columns / max(1, width - 1) - 1
    grid = torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1).to(planes.dtype)
    return F.grid_sample(planes, grid.expand(len(planes), -1, -1, -1), padding_mode="border", align_corners=True)
