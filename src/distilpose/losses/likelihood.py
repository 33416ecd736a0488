"""Residual log-likelihood estimation (RLE, after Li et al., ICCV 2021): the density of errors is learnt with the pose.

A student predicts a joint's position mu and its sigma. The normalised error e = (x - mu) / sigma has one density for all
joints: a standard Laplace Q, transformed by a normalising flow f,

    log p(e) = log Q(f(e)) + log |det f'(e)|.

f starts as the identity, so p starts as the plain Laplace, and f learns the residual. The loss is the negative log density of
x, -log p(e) + log sigma_x + log sigma_y. Its gradient also reaches the student through f; as in the published code, no
gradient is stopped.

Differences from the paper (section 3.2) and its code:

- In the paper log p = log Q + log G + log s, with the density G of the flow and s = 1 / integral of Q G. The code leaves s
  out. Then the sum is not a density, and it is highest for flows that concentrate G where Q is already high: trained on errors
  with two peaks, it finds a density under which they are less likely. With log s computed over a grid, the flow learns to
  leave the grid; with errors of many sigmas (a first epoch on Leeds Sports) the likelihood went to infinity. A flow that
  starts at Q needs no s.
- In the paper G starts as a standard normal, so p starts with Gaussian tails. Here the tails are those of a Laplace, whose
  gradient does not grow with the error. The flow can change that: an axis's gradient may become proportional to the other
  axis's error.
- The code counts log sigma and log G twice and log Q once. Here each is counted once.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from distilpose.losses.float_precision import full_precision, without_autocast

# In cells, added in quadrature to every sigma: it bounds the gain of a small sigma and the gradient of an error. 0.01 cells
# are 0.04 pixels, finer than any annotation.
MINIMUM_SIGMA = 0.01


class ResidualLogLikelihood(nn.Module):
    """Negative log-likelihood of the ground truth under the student's positions and sigmas and a learnt error density.

    The parameters of the flow are trained with the student and not used at inference.

    Args:
        layers: coupling layers of the flow, which transform y and x in turn.
        hidden: units in each of a layer's two hidden layers.
    """

    def __init__(self, layers: int = 6, hidden: int = 64):
        super().__init__()
        self.flow = nn.ModuleList(Coupling(hidden) for _ in range(layers))

    @without_autocast
    def forward(
        self, keypoints: Tensor, sigmas: Tensor, target: Tensor, weights: Tensor, size: tuple[int, int]
    ) -> Tensor:
        """The loss in nats per joint, which may be negative. The mean runs over all N K; joints of weight 0 count as 0.

        Args:
            keypoints: (N, K, 2) the student's positions as a share of the crop.
            sigmas: (N, K, 2) in cells, along x and y.
            target: (N, K, 2) ground truth as a share of the crop.
            weights: (N, K) weights of the joints.
            size: rows and columns of the heat map; its cells are the unit of sigmas.
        """
        keypoints, target, weights = full_precision(keypoints), full_precision(target), full_precision(weights)
        # added instead of clamped: a clamped sigma would get no gradient
        sigmas = (full_precision(sigmas).square() + MINIMUM_SIGMA**2).sqrt()
        rows, columns = size
        errors = (target - keypoints) * keypoints.new_tensor([columns, rows]) / sigmas
        log_likelihood = self.log_prob(errors) - sigmas.log().sum(dim=-1)
        return -(weights * log_likelihood).mean()

    def log_prob(self, errors: Tensor) -> Tensor:
        """Log density (...) of normalised errors (..., 2)."""
        kept, moved = errors.to(next(self.parameters()).dtype).split(1, dim=-1)
        stretch = torch.zeros_like(kept)
        for layer in self.flow:
            moved, log_scale = layer(kept, moved)
            stretch = stretch + log_scale
            kept, moved = moved, kept
        laplace = -full_precision(kept).abs() - full_precision(moved).abs() - 2 * math.log(2)
        return (laplace + stretch).squeeze(-1).to(errors.dtype)


class Coupling(nn.Module):
    """One affine coupling of RealNVP in two dimensions: moved -> moved exp(s) + t, with s and t functions of the other axis.

    s is bounded to [-1, 1]. The last layer starts at zero, so the flow starts as the identity. SiLU replaces the leaky ReLU of
    the published code, so that the density is smooth.

    Args:
        hidden: units in each of the two hidden layers.
    """

    def __init__(self, hidden: int):
        super().__init__()
        last = nn.Linear(hidden, 2)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.net = nn.Sequential(nn.Linear(1, hidden), nn.SiLU(), nn.Linear(hidden, hidden), nn.SiLU(), last)

    def forward(self, kept: Tensor, moved: Tensor) -> tuple[Tensor, Tensor]:
        """Transform `moved` (M, 1) given `kept` (M, 1): the new value, and the log scale, which is the log-determinant."""
        log_scale, offset = self.net(kept).split(1, dim=-1)
        log_scale = log_scale.tanh()
        return moved * log_scale.exp() + offset, log_scale
