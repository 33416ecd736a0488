"""Residual log-likelihood estimation: which errors are likely is learnt along with the pose (after Li et al., ICCV 2021).

A student says where a joint is, mu, and how sure it is, sigma. The density of the normalised error e = (x - mu) / sigma is
one for all joints: a standard Laplace Q of what a normalising flow f makes of the error,

    log p(e) = log Q(f(e)) + log |det f'(e)|,

where f starts as the identity, hence p as the plain Laplace, and learns what that gets wrong: the residual. The loss is the
negative logarithm of the density of x, -log p(e) + log sigma_x + log sigma_y. Its gradient reaches the student through f
too; as in the published code, none is stopped.

Where this differs from the paper (section 3.2) and its code:

- There log p = log Q + log G + log s, G the flow's own density and s = 1 / integral of Q G, which the code leaves out. The
  sum is then no density, and highest for flows that pile G up where Q is high already: trained so on errors with two peaks,
  it finds a density under which they are less likely. With log s computed over a grid, a flow learns to leave the grid, and
  where errors are of many sigmas (a first epoch on Leeds Sports) it drove the likelihood to infinity. One flow that starts
  at Q needs no s.
- There G starts as a standard normal, so that p starts with a Gaussian's tails. Here they are a Laplace's, whose pull does not
  grow with the error. What the flow learns can change that: an axis may come to be pulled in proportion to the other's error.
- There log sigma and log G are counted twice, which log Q is not. Here each is counted once.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from distilpose.errors import DistilPoseError
from distilpose.losses.precision import full_precision, without_autocast

# Cells, added to every sigma as squares are, which bounds the gain from sureness and the pull of an error.
# A hundredth of a cell is a twenty-fifth of a pixel, finer than any annotation.
MINIMUM_SIGMA = 0.01


class ResidualLogLikelihood(nn.Module):
    """Negative log-likelihood of the ground truth under the student's positions and sigmas and a learnt error density.

    It has parameters, the flow's, to be trained along with the student and not needed after.

    Args:
        layers: coupling layers of the flow, which move y and x by turns.
        hidden: units in each of a layer's two hidden layers.
    """

    def __init__(self, layers: int = 6, hidden: int = 64):
        super().__init__()
        if layers < 1 or hidden < 1:
            raise DistilPoseError(f"layers={layers} and hidden={hidden} must be at least 1.")
        self.flow = nn.ModuleList(Coupling(hidden) for _ in range(layers))

    @without_autocast
    def forward(
        self, keypoints: Tensor, sigmas: Tensor, target: Tensor, weights: Tensor, size: tuple[int, int]
    ) -> Tensor:
        """The loss in nats a joint, which may be negative; mean over all N K, so joints of weight 0 count 0.

        Args:
            keypoints: (N, K, 2) the student's positions as a share of the crop.
            sigmas: (N, K, 2) in cells, along x and y.
            target: (N, K, 2) ground truth as a share of the crop.
            weights: (N, K) of the joints.
            size: rows and columns of the heat map, whose cells are the unit of sigmas.
        """
        keypoints, target, weights = full_precision(keypoints), full_precision(target), full_precision(weights)
        # not clamped: a sigma under the minimum has to find its way out again
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
    """One affine coupling of RealNVP in two dimensions: moved -> moved exp(s) + t, both s and t read off the other axis.

    s is bounded to [-1, 1]. The last layer starts at zero, which makes the flow the identity. Hidden layers are smooth (SiLU
    where the published code has a leaky ReLU), and so is then the density.

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
        """Where (M, 1) `moved` goes, given `kept` of the same shape, and log of the scale, the log-determinant."""
        log_scale, offset = self.net(kept).split(1, dim=-1)
        log_scale = log_scale.tanh()
        return moved * log_scale.exp() + offset, log_scale
