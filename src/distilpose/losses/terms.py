"""The terms as functions: tensors in, an unweighted scalar out.

Letters: w is a joint's weight, T the teacher's heat map and G the student's simulated one (`simulated_heatmaps`).
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from distilpose.losses.heatmaps import simulated_heatmaps


def regression_loss(predicted: Tensor, target: Tensor, weights: Tensor, beta: float = 1.0) -> Tensor:
    """Mean of smooth_L1(w p - w t) over all N K 2 coordinates, predicted p and target t, unlabelled joints included.

    Coordinates are shares of the crop, so with the paper's beta of 1 every error is in the quadratic part. A small beta makes
    it L1.
    """
    weights = weights.unsqueeze(-1)
    return F.smooth_l1_loss(predicted * weights, target * weights, beta=beta)


def token_loss(student: Tensor, teacher: Tensor, weights: Tensor | None = None) -> Tensor:
    """Mean squared difference of tokens (N, T, D) over all N T D, each token's weighted by `weights` (T,) if given."""
    if weights is None:
        return F.mse_loss(student, teacher)
    return ((student - teacher).square().mean(dim=-1) * weights).mean()


def teacher_confidence(keypoints: Tensor, heatmaps: Tensor, released: bool = False) -> Tensor:
    """The teacher's heat-map value (N, K) at the student's keypoints, without gradient; 0 outside the crop.

    Args:
        keypoints: (N, K, 2) as a share of the crop.
        heatmaps: (N, K, H, W) maps of the teacher.
        released: read column round(x (W - 1)) as the release does, instead of the cell nearest to x W.
    """
    rows, columns = heatmaps.shape[-2:]
    last = keypoints.new_tensor([columns - 1, rows - 1])
    inside = ((keypoints >= 0) & (keypoints <= 1)).all(dim=-1)
    position = keypoints.detach().clamp(0, 1) * (last if released else last + 1)
    column, row = position.round().minimum(last).long().unbind(dim=-1)
    value = heatmaps.flatten(2).gather(2, (row * columns + column).unsqueeze(-1)).squeeze(-1)
    return value.detach() * inside


def confidence_loss(
    scores: Tensor, keypoints: Tensor, heatmaps: Tensor, weights: Tensor, released: bool = False
) -> Tensor:
    """Mean of |w s - w T(p)| over all N K scores s; T(p) is the teacher's value at the student's keypoints."""
    return F.l1_loss(scores * weights, teacher_confidence(keypoints, heatmaps, released) * weights)


def simulated_heatmap_loss(
    keypoints: Tensor, sigmas: Tensor, heatmaps: Tensor, weights: Tensor, released: bool = False
) -> Tensor:
    """Mean of (w (G - T))^2 over all joints and cells of the maps (N, K, H, W).

    A joint whose 3-sigma box is completely outside the map has weight 0. With `released`, each joint's squared weights and
    squared differences are averaged over the batch separately and then multiplied, which equals the release's N x N broadcast.
    """
    maps, on_map = simulated_heatmaps(keypoints, sigmas, (heatmaps.shape[-2], heatmaps.shape[-1]))
    weights = (weights * on_map).square()
    if released:
        maps = maps * on_map[..., None, None]
    error = (maps - heatmaps).square().mean(dim=(-2, -1))
    if released:
        return (weights.mean(dim=0) * error.mean(dim=0)).mean()
    return (weights * error).mean()
