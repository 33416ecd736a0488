"""Simulated heat maps of a student, and the two losses that train a heat-map teacher."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from distilpose.losses.float_precision import full_precision, without_autocast

# added to each squared sigma, to avoid a division by zero
SIGMA_EPSILON = 1e-9
# added to each cell of a teacher's map, as a share of its peak, before it is multiplied by the label: the teacher may be wrong
DOUBT = 0.05


def simulated_heatmaps(keypoints: Tensor, sigmas: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """The Gaussians that a student predicts (paper, simulated heat maps), with a peak of 1 and not truncated.

    G(i, j) = exp(-(i - W x)^2 / (2 sigma_x^2) - (j - H y)^2 / (2 sigma_y^2)) in column i and row j of a map of H x W cells.

    Args:
        keypoints: (N, K, 2) positions as a share of the crop.
        sigmas: (N, K, 2) standard deviations in cells, along x and y.
        size: rows and columns of the map.

    Returns:
        Maps (N, K, rows, columns), and (N, K) 1 if any part of the 3-sigma box lies on the map, else 0.
    """
    rows, columns = size
    extent = keypoints.new_tensor([columns, rows])
    mean = keypoints * extent
    reach = 3 * sigmas.detach()
    on_map = ((mean - reach < extent) & (mean + reach + 1 >= 0)).all(dim=-1)
    variance = sigmas**2 + SIGMA_EPSILON
    x = torch.arange(columns, device=keypoints.device, dtype=keypoints.dtype)
    y = torch.arange(rows, device=keypoints.device, dtype=keypoints.dtype)
    # the Gaussian is separable: one exponential for each axis, then an outer product
    along_x = torch.exp(-0.5 * (x - mean[..., :1]) ** 2 / variance[..., :1])
    along_y = torch.exp(-0.5 * (y - mean[..., 1:]) ** 2 / variance[..., 1:])
    return along_y.unsqueeze(-1) * along_x.unsqueeze(-2), on_map.to(keypoints.dtype)


def informed_heatmaps(heatmaps: Tensor, keypoints: Tensor, weights: Tensor, sigma: float) -> Tensor:
    """The teacher's maps updated by the labels: prior (its map) times likelihood (the label's Gaussian).

    A teacher is sometimes confident of a wrong position. Therefore a share `DOUBT` of the peak is first added to each map. If
    the teacher is right, the shape of its map remains; if it is wrong, the label's Gaussian remains.

    Args:
        heatmaps: (N, K, H, W) maps of the teacher.
        keypoints: (N, K, 2) labels as a share of the crop.
        weights: (N, K) above 0 if the joint has a label; other maps are not changed.
        sigma: standard deviation of label errors in cells.

    Returns:
        (N, K, H, W) with the peak height of each map.
    """
    tiny = torch.finfo(heatmaps.dtype).tiny
    peak = heatmaps.amax(dim=(-2, -1), keepdim=True).clamp(min=0)
    size = (heatmaps.shape[-2], heatmaps.shape[-1])
    likelihood, _ = simulated_heatmaps(keypoints, torch.full_like(keypoints, sigma), size)
    informed = (heatmaps.clamp(min=0) / peak.clamp(min=tiny) + DOUBT) * likelihood
    informed = informed / informed.amax(dim=(-2, -1), keepdim=True).clamp(min=tiny) * peak
    return torch.where((weights > 0)[..., None, None], informed, heatmaps)


class HeatmapMSE(nn.Module):
    """Mean squared difference of heat maps, the paper's loss for a teacher.

    Mean over samples and cells of (w (prediction - target))^2 for each joint, then the mean over joints.
    """

    heatmap_activation: Literal["none"] = "none"

    @without_autocast
    def forward(self, heatmaps: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
        """The loss of maps (N, K, H, W) against targets of the same shape, weighted by (N, K); a scalar."""
        difference = (full_precision(heatmaps) - full_precision(targets)) * full_precision(weights)[..., None, None]
        return difference.square().mean()


class HeatmapCrossEntropy(nn.Module):
    """Cross-entropy between a joint's target, normalised to sum to one, and its map read as a distribution over cells.

    The teacher's maps are softmax maps scaled to a peak of one (`heatmap_activation`), so their logarithm is the logits up to a
    constant. As long as a network does not find the joints, the squared difference is lowest for a flat map, and small
    teachers stay there. Cross-entropy has no such plateau: use it for small teachers and short trainings.
    """

    heatmap_activation: Literal["softmax"] = "softmax"

    # the smallest normal float32: cells below it get no gradient instead of an infinite one
    SMALLEST = 1.2e-38

    @without_autocast
    def forward(self, heatmaps: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
        """The loss of maps (N, K, H, W) in (0, 1] against targets of the same shape, weighted by (N, K); a scalar."""
        logits = full_precision(heatmaps).clamp(min=self.SMALLEST).log().flatten(2)
        target = full_precision(targets).flatten(2)
        target = target / target.sum(dim=-1, keepdim=True).clamp(min=self.SMALLEST)
        weights = full_precision(weights)
        cross_entropy = -(target * logits.log_softmax(dim=-1)).sum(dim=-1)
        return (cross_entropy * weights).sum() / weights.sum().clamp(min=1)
