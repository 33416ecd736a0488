"""Heat maps as losses see them: the Gaussian a student describes, and the two losses that train a teacher."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from distilpose.losses.precision import full_precision, without_autocast

# added to each squared sigma, so that a collapsed Gaussian divides by something
SIGMA_EPSILON = 1e-9
# share of a map's peak that a teacher told the label leaves to every place, since it may be wrong
DOUBT = 0.05


def simulated_heatmaps(keypoints: Tensor, sigmas: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """The Gaussians a student describes (paper, simulated heat maps): peak 1, over the whole map, not truncated.

    Args:
        keypoints: (N, K, 2) positions as a share of the crop.
        sigmas: (N, K, 2) standard deviations in cells, along x and y.
        size: rows and columns of the map.

    Returns:
        Maps (N, K, rows, columns), and (N, K) 1 where any part of the 3-sigma box lies on the map, else 0.
    """
    rows, columns = size
    extent = keypoints.new_tensor([columns, rows])
    mean = keypoints * extent
    reach = 3 * sigmas.detach()
    on_map = ((mean - reach < extent) & (mean + reach + 1 >= 0)).all(dim=-1)
    variance = sigmas**2 + SIGMA_EPSILON
    x = torch.arange(columns, device=keypoints.device, dtype=keypoints.dtype)
    y = torch.arange(rows, device=keypoints.device, dtype=keypoints.dtype)
    # the Gaussian is separable: exponents of an axis each, then an outer product
    along_x = torch.exp(-0.5 * (x - mean[..., :1]) ** 2 / variance[..., :1])
    along_y = torch.exp(-0.5 * (y - mean[..., 1:]) ** 2 / variance[..., 1:])
    return along_y.unsqueeze(-1) * along_x.unsqueeze(-2), on_map.to(keypoints.dtype)


def informed_heatmaps(heatmaps: Tensor, keypoints: Tensor, weights: Tensor, sigma: float) -> Tensor:
    """What a teacher would say had it seen the label too: its map times the label's Gaussian, as belief times likelihood.

    A teacher is sure of a wrong place now and then. So each of its maps is first mixed with a share `DOUBT` of a flat one:
    where it is right, what it knows of the joint's surroundings stays; where it is not, the label's Gaussian is left.

    Args:
        heatmaps: (N, K, H, W) of the teacher.
        keypoints: (N, K, 2) labels as a share of the crop.
        weights: (N, K) above 0 where the label counts; elsewhere maps stay as they are.
        sigma: how far labels lie from the truth, in cells.

    Returns:
        (N, K, H, W) with the peak of each map kept.
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

    heatmap_activation = "none"

    @without_autocast
    def forward(self, heatmaps: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
        """The loss of maps (N, K, H, W) against targets of the same shape, weighted by (N, K); a scalar."""
        difference = (full_precision(heatmaps) - full_precision(targets)) * full_precision(weights)[..., None, None]
        return difference.square().mean()


class HeatmapCrossEntropy(nn.Module):
    """Cross-entropy between a joint's target, normalised to sum to one, and its map read as a distribution over cells.

    The teacher's maps are softmax maps scaled to a peak of one (`heatmap_activation`), which the logarithm undoes up to
    a constant. Unlike the squared difference, it does not stay on the mean-pose plateau where a flat map is cheapest:
    the loss to use for small teachers and small budgets.
    """

    heatmap_activation = "softmax"

    # the smallest normal float32: cells under it carry no gradient, instead of an infinite one
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
