"""Losses that read the student's Gaussian and the teacher's heat map as distributions over the map's cells.

Cell i is at coordinate i, so a joint at keypoint (x, y) lies at (x W, y H) cells, as in `simulated_heatmaps`. Each joint's
term sums both axes and is multiplied by its weight; the mean runs over all N K, so joints of weight 0 count 0. A map
without a positive cell says nothing: its joint has weight 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from distilpose.errors import DistilPoseError
from distilpose.losses.heatmaps import SIGMA_EPSILON

# Teachers trained by squared difference leave noise all over the map, which its thousands of cells add up to more than
# the joint. Of Gaussians of sigma 2 on 64 x 48 cells under noise of 0.01, the moments are
#   floor   error of the mean   sigma
#   0       2.7 cells           9.0
#   0.05    0.02 cells          2.01 +- 0.02
#   0.1     0.02 cells          2.01 +- 0.03
#   0.2     0.04 cells          2.01 +- 0.03
# At noise of 0.02, 0.05 fails as well (0.4 cells, 4.3) and 0.1 holds (0.03 cells, 2.02 +- 0.03).
FLOOR = 0.1

# log shares of the cells of one axis, from the cells' coordinates, means and sigmas
Shape = Callable[[Tensor, Tensor, Tensor], Tensor]


def normalised_maps(heatmaps: Tensor, floor: float = FLOOR) -> tuple[Tensor, Tensor]:
    """Heat maps as distributions: cells that are negative or under the floor count 0, and each map sums to one.

    Args:
        heatmaps: (N, K, H, W), of any scale.
        floor: share of the map's peak, in [0, 1), under which a cell counts 0.

    Returns:
        Distributions (N, K, H, W), and (N, K) 1 where the map has a positive cell, else 0, where the distribution is 0 too.
    """
    if not 0 <= floor < 1:
        raise DistilPoseError(f"floor={floor} must be at least 0 and less than 1; 0 keeps every positive cell.")
    peak = heatmaps.amax(dim=(-2, -1), keepdim=True)
    known = peak > 0
    # scaled to a peak of one first, so that the sum over a faint map is no tiny number
    scaled = heatmaps.clamp(min=0) / peak.where(known, torch.ones_like(peak))
    kept = scaled * (scaled >= floor)
    return kept / kept.sum(dim=(-2, -1), keepdim=True).clamp(min=1), known[..., 0, 0].to(heatmaps.dtype)


def marginal_loss(keypoints: Tensor, sigmas: Tensor, heatmaps: Tensor, weights: Tensor, floor: float = FLOOR) -> Tensor:
    """Squared difference between the marginals of student and teacher along x and along y, summed over their W + H cells.

    The student's marginal is a 1-D Gaussian normalised over the axis's cells; the teacher's is its normalised map, summed
    over the other axis. As of maps, the gradient vanishes where the two are many sigmas apart.

    Args:
        keypoints: (N, K, 2) positions as a share of the crop.
        sigmas: (N, K, 2) standard deviations in cells, along x and y.
        heatmaps: (N, K, H, W) of the teacher.
        weights: (N, K) of the joints.
        floor: share of a map's peak under which a cell counts 0. It cuts tails off: 0 for maps without noise.
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
    shape: str = "gaussian",
) -> Tensor:
    """Kullback-Leibler divergence sum T log(T / S) over the cells, of the student's S from the teacher's normalised T; nats.

    S is a product over the axes, so that log S needs T's marginals only. The pull towards a far teacher does not vanish:
    a Gaussian's is the distance of the means divided by sigma^2, a Laplace's 1 / sigma however far, which is the shape for
    teachers whose peak is sometimes at a wrong place. The sigma that fits best is the teacher's standard deviation in the
    first case, about its mean absolute deviation in the second.

    Args:
        keypoints: (N, K, 2) positions as a share of the crop.
        sigmas: (N, K, 2) in cells, along x and y: the Gaussian's standard deviations or the Laplace's scales.
        heatmaps: (N, K, H, W) of the teacher.
        weights: (N, K) of the joints.
        floor: share of a map's peak under which a cell counts 0. It cuts tails off (at 0.1, a Gaussian's fitting sigma is
            0.86 of its own): 0 for maps without noise.
        shape: 'gaussian' or 'laplace', of S.
    """
    if shape not in SHAPES:
        raise DistilPoseError(f"shape={shape!r} must be one of {', '.join(SHAPES)}.")
    maps, known = normalised_maps(heatmaps, floor)
    cross_entropy = -(_marginals(maps) * _log_marginals(keypoints, sigmas, maps, SHAPES[shape])).sum(dim=-1)
    entropy = torch.special.entr(maps).sum(dim=(-2, -1))
    return (weights * known * (cross_entropy - entropy)).mean()


def moment_targets(heatmaps: Tensor, floor: float = FLOOR) -> tuple[Tensor, Tensor]:
    """Where a teacher's map says a joint is and how sure it is: the mean and standard deviation of the normalised map.

    What the floor cuts off the variance is put back as if the map were a Gaussian, whose variance above a share f of its
    peak is 1 - f log(1 / f) / (1 - f) of the whole. Of a map with two peaks, the mean lies between them.

    Args:
        heatmaps: (N, K, H, W) of the teacher.
        floor: share of a map's peak, in [0, 1), under which a cell counts 0.

    Returns:
        Means (N, K, 2) as a share of the crop and standard deviations (N, K, 2) in cells, both (x, y); 0 of a map
        without a positive cell.
    """
    maps, _ = normalised_maps(heatmaps, floor)
    rows, columns = maps.shape[-2:]
    x, y = _cells(maps)
    along_x, along_y = _marginals(maps).split([columns, rows], dim=-1)
    mean = torch.stack([(along_x * x).sum(dim=-1), (along_y * y).sum(dim=-1)], dim=-1)
    # of the distances from the mean, not of squares minus the squared mean, which float32 would round away
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
        heatmaps: (N, K, H, W) of the teacher.
        weights: (N, K) of the joints.
        floor: share of a map's peak under which a cell counts 0.
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
    """Log shares (N, K, cells) of the axis's cells: a Gaussian at their centres, normalised over them."""
    return (-0.5 * ((cells - mean) / sigma).square()).log_softmax(dim=-1)


def _laplace(cells: Tensor, mean: Tensor, sigma: Tensor) -> Tensor:
    """Log shares (N, K, cells) of the axis's cells: a Laplace integrated over each, from i - 1/2 to i + 1/2.

    Not normalised over the map: there, the shares of a Laplace centred outside would not depend on where, so that it felt
    no pull; and one read at the cells' centres is pulled by half or by twice as much from one end of a cell to the other.
    """
    distance = (cells - mean).abs()
    # within the mean's own cell the integral goes to both sides; further out the share falls by 1 / sigma a cell
    within = distance.clamp(max=0.5)
    share = -0.5 * (torch.expm1((-0.5 - within) / sigma) + torch.expm1((within - 0.5) / sigma))
    return share.log() - (distance - within) / sigma


SHAPES = {"gaussian": _gaussian, "laplace": _laplace}
