"""Losses that read the student's Gaussian and the teacher's heat map as distributions over the map's cells.

Cell i is at coordinate i, so a joint at keypoint (x, y) lies at (x W, y H) cells, as in `simulated_heatmaps`. Each joint's
term sums both axes and is multiplied by its weight. The mean runs over all N K, so joints of weight 0 count as 0. A joint
whose map has no positive cell has weight 0.

In all functions `floor` is a share of the map's peak, in [0, 1): cells below it count as 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from distilpose.losses.heatmaps import SIGMA_EPSILON

# Teachers trained by squared difference have noise in all cells. Summed over thousands of cells it outweighs the joint.
# For Gaussians of sigma 2 on 64 x 48 cells with noise of 0.01, the moments are
#   floor   error of the mean   sigma
#   0       2.7 cells           9.0
#   0.05    0.02 cells          2.01 +- 0.02
#   0.1     0.02 cells          2.01 +- 0.03
#   0.2     0.04 cells          2.01 +- 0.03
# At noise of 0.02 a floor of 0.05 fails too (0.4 cells, 4.3), and 0.1 holds (0.03 cells, 2.02 +- 0.03).
FLOOR = 0.1

# log shares of the cells of one axis, from the cells' coordinates, means and sigmas
Shape = Callable[[Tensor, Tensor, Tensor], Tensor]


def normalised_maps(heatmaps: Tensor, floor: float = FLOOR) -> tuple[Tensor, Tensor]:
    """Heat maps as distributions: cells that are negative or below the floor count as 0, and each map sums to one.

    Args:
        heatmaps: (N, K, H, W) at any scale.
        floor: see the module's docstring; 0 keeps every positive cell.

    Returns:
        Distributions (N, K, H, W), and (N, K) 1 where the map has a positive cell; elsewhere both are 0.
    """
    peak = heatmaps.amax(dim=(-2, -1), keepdim=True)
    known = peak > 0
    # scaled to a peak of one first, because the sum of a faint map would be tiny
    scaled = heatmaps.clamp(min=0) / peak.where(known, torch.ones_like(peak))
    kept = scaled * (scaled >= floor)
    return kept / kept.sum(dim=(-2, -1), keepdim=True).clamp(min=1), known[..., 0, 0].to(heatmaps.dtype)


def marginal_loss(keypoints: Tensor, sigmas: Tensor, heatmaps: Tensor, weights: Tensor, floor: float = FLOOR) -> Tensor:
    """Squared difference between the marginals of student and teacher along x and along y, summed over their W + H cells.

    The student's marginal is a 1-D Gaussian normalised over the axis's cells. The teacher's is its normalised map, summed
    over the other axis. As with maps, the gradient vanishes where the two are many sigmas apart.

    Args:
        keypoints: (N, K, 2) positions as a share of the crop.
        sigmas: (N, K, 2) standard deviations in cells, along x and y.
        heatmaps: (N, K, H, W) maps of the teacher.
        weights: (N, K) weights of the joints.
        floor: see the module's docstring. It cuts off tails, so set it to 0 for maps without noise.
    """
    maps, known = normalised_maps(heatmaps, floor)
    student = _log_marginals(keypoints, sigmas, maps, _gaussian).exp()
    return (weights * known * (student - _marginals(maps)).square().sum(dim=-1)).mean()


def divergence_loss(
    keypoints: Tensor,
    sigmas: Tensor,
    heatmaps: Tensor,
    weights: Tensor,
    floor: float = FLOOR,
    shape: Literal["gaussian", "laplace"] = "gaussian",
) -> Tensor:
    """Kullback-Leibler divergence of the student's S from the teacher's normalised T: sum of T log(T / S) over cells, in nats.

    S is a product over the axes, so log S needs only the marginals of T. The gradient towards a distant teacher does not
    vanish. For a Gaussian it is the distance of the means divided by sigma^2, for a Laplace 1 / sigma at any distance. Use the
    Laplace for teachers whose peak is sometimes at a wrong position. The best sigma is the teacher's standard deviation for
    a Gaussian, and about its mean absolute deviation for a Laplace.

    Args:
        keypoints: (N, K, 2) positions as a share of the crop.
        sigmas: (N, K, 2) in cells, along x and y: the Gaussian's standard deviations or the Laplace's scales.
        heatmaps: (N, K, H, W) maps of the teacher.
        weights: (N, K) weights of the joints.
        floor: see the module's docstring. It cuts off tails (at 0.1 the best sigma is 0.86 times that of a Gaussian map), so
            set it to 0 for maps without noise.
        shape: distribution of S.
    """
    maps, known = normalised_maps(heatmaps, floor)
    cross_entropy = -(_marginals(maps) * _log_marginals(keypoints, sigmas, maps, SHAPES[shape])).sum(dim=-1)
    entropy = torch.special.entr(maps).sum(dim=(-2, -1))
    return (weights * known * (cross_entropy - entropy)).mean()


def moment_targets(heatmaps: Tensor, floor: float = FLOOR) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of the teacher's normalised map: position and uncertainty of a joint.

    The variance that the floor cuts off is restored as for a Gaussian: its part above a share f of the peak has a variance of
    1 - f log(1 / f) / (1 - f) times the full one. The mean of a map with two peaks lies between them.

    Args:
        heatmaps: (N, K, H, W) maps of the teacher.
        floor: see the module's docstring.

    Returns:
        Means (N, K, 2) as a share of the crop and standard deviations (N, K, 2) in cells, both (x, y); 0 for a map without
        a positive cell.
    """
    maps, _ = normalised_maps(heatmaps, floor)
    rows, columns = maps.shape[-2:]
    x, y = _cells(maps)
    along_x, along_y = _marginals(maps).split([columns, rows], dim=-1)
    mean = torch.stack([(along_x * x).sum(dim=-1), (along_y * y).sum(dim=-1)], dim=-1)
    # computed from distances to the mean: in float32 the mean of squares minus the squared mean loses its digits
    variance = torch.stack(
        [
            (along_x * (x - mean[..., :1]).square()).sum(dim=-1),
            (along_y * (y - mean[..., 1:]).square()).sum(dim=-1),
        ],
        dim=-1,
    )
    kept = 1 + floor * math.log(floor) / (1 - floor) if floor > 0 else 1.0
    return mean / mean.new_tensor([columns, rows]), (variance / kept).sqrt()


def moment_loss(keypoints: Tensor, sigmas: Tensor, heatmaps: Tensor, weights: Tensor, floor: float = FLOOR) -> Tensor:
    """Smooth L1 (beta 1 cell) of the student's position and sigma, in cells, to the mean and deviation of the teacher's map.

    Args:
        keypoints: (N, K, 2) positions as a share of the crop.
        sigmas: (N, K, 2) standard deviations in cells, along x and y.
        heatmaps: (N, K, H, W) maps of the teacher.
        weights: (N, K) weights of the joints.
        floor: see the module's docstring.
    """
    mean, deviation = moment_targets(heatmaps, floor)
    known = (heatmaps > 0).any(dim=-1).any(dim=-1)
    extent = keypoints.new_tensor([heatmaps.shape[-1], heatmaps.shape[-2]])
    student, teacher = torch.cat([keypoints * extent, sigmas], dim=-1), torch.cat([mean * extent, deviation], dim=-1)
    return (weights * known * F.smooth_l1_loss(student, teacher, reduction="none").sum(dim=-1)).mean()


def _cells(maps: Tensor) -> tuple[Tensor, Tensor]:
    """The coordinates (W,) of a map's columns and (H,) of its rows."""
    x = torch.arange(maps.shape[-1], device=maps.device, dtype=maps.dtype)
    return x, torch.arange(maps.shape[-2], device=maps.device, dtype=maps.dtype)


def _marginals(maps: Tensor) -> Tensor:
    """Sums (N, K, W + H) of maps (N, K, H, W) over each column, then over each row."""
    return torch.cat([maps.sum(dim=-2), maps.sum(dim=-1)], dim=-1)


def _log_marginals(keypoints: Tensor, sigmas: Tensor, maps: Tensor, shape: Shape) -> Tensor:
    """Logarithms (N, K, W + H) of the student's two marginals over the cells of maps (N, K, H, W)."""
    x, y = _cells(maps)
    mean = keypoints * keypoints.new_tensor([len(x), len(y)])
    sigmas = (sigmas.square() + SIGMA_EPSILON).sqrt()
    along_x = shape(x, mean[..., :1], sigmas[..., :1])
    along_y = shape(y, mean[..., 1:], sigmas[..., 1:])
    return torch.cat([along_x, along_y], dim=-1)


def _gaussian(cells: Tensor, mean: Tensor, sigma: Tensor) -> Tensor:
    """Log shares (N, K, cells) of an axis's cells: a Gaussian evaluated at their centres and normalised over them."""
    return (-0.5 * ((cells - mean) / sigma).square()).log_softmax(dim=-1)


def _laplace(cells: Tensor, mean: Tensor, sigma: Tensor) -> Tensor:
    """Log shares (N, K, cells) of an axis's cells: a Laplace integrated over each cell, from i - 1/2 to i + 1/2.

    The shares are not normalised over the map. Otherwise they would not depend on the position of a Laplace centred outside
    the map, and its gradient would vanish. They are integrated because the gradient of a Laplace evaluated at the cells'
    centres varies by a factor of four within a cell.
    """
    distance = (cells - mean).abs()
    # in the cell of the mean the integral has two sides; beyond it, the log share falls by 1 / sigma per cell
    within = distance.clamp(max=0.5)
    share = -0.5 * (torch.expm1((-0.5 - within) / sigma) + torch.expm1((within - 0.5) / sigma))
    return share.log() - (distance - within) / sigma


SHAPES = {"gaussian": _gaussian, "laplace": _laplace}
