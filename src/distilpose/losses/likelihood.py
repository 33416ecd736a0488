"""Residual log-likelihood estimation: which errors are likely is learnt along with the pose (Li et al., ICCV 2021).

A student says where a joint is, mu, and how sure it is, sigma. The density of the normalised error e = (x - mu) / sigma is
one for all joints (section 3.2 of the paper),

    log p(e) = log Q(e) + log G(e) + log s,    s = 1 / integral of Q G,

Q a fixed simple density and G a normalising flow's, which learns what Q gets wrong. The loss is the negative logarithm of
the density of x, -log p(e) + log sigma_x + log sigma_y. Its gradient reaches the student both through Q, the paper's
shortcut, and through the flow; as in the published code, none is stopped.

Where this differs from the published code:

- There G starts as a standard normal, so that p starts with a Gaussian's tails. Here Q and the flow's base are one density,
  twice as wide (Laplace) or of twice the variance (Gaussian), whose normalised product is the standard one: an untrained
  flow gives the plain Laplace or Gaussian likelihood, and a Laplace's pull stays bounded however large the error.
- There log s is left out, which favours flows that pile G up where Q is high. Here it can be computed; a training that starts
  far from the truth has to do without (see `DistillationLoss`).
- There log sigma and log G are counted twice, which log Q is not. Here each is counted once.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from distilpose.errors import DistilPoseError
from distilpose.losses.precision import full_precision, without_autocast

# Cells; sigmas under it count as it, which bounds the gain from sureness and the pull of an error (to 1 / sigma a cell).
# A hundredth of a cell is a twenty-fifth of a pixel, finer than any annotation.
MINIMUM_SIGMA = 0.01


class Density(NamedTuple):
    """A density on the line whose square, normalised, is the standard one of its family.

    Attributes:
        log_prob: log density of values of any shape.
        quantile: the values under which shares in (0, 1) of the probability lie.
    """

    log_prob: Callable[[Tensor], Tensor]
    quantile: Callable[[Tensor], Tensor]


def laplace_log_prob(values: Tensor) -> Tensor:
    """Log density of a Laplace of scale 2."""
    return -0.5 * values.abs() - math.log(4)


def laplace_quantile(shares: Tensor) -> Tensor:
    """Quantiles of a Laplace of scale 2."""
    centred = shares - 0.5
    return -2 * centred.sign() * torch.log1p(-2 * centred.abs())


def gaussian_log_prob(values: Tensor) -> Tensor:
    """Log density of a Gaussian of variance 2."""
    return -0.25 * values.square() - 0.5 * math.log(4 * math.pi)


def gaussian_quantile(shares: Tensor) -> Tensor:
    """Quantiles of a Gaussian of variance 2."""
    return math.sqrt(2) * torch.special.ndtri(shares)


DENSITIES = {
    "laplace": Density(laplace_log_prob, laplace_quantile),
    "gaussian": Density(gaussian_log_prob, gaussian_quantile),
}


class ResidualLogLikelihood(nn.Module):
    """Negative log-likelihood of the ground truth under the student's positions and sigmas and a learnt error density.

    It has parameters, the flow's, to be trained along with the student and not needed after.

    The integral in log s is a mean over a grid of points that Q makes equally probable. In training the grid is at another
    random offset each time, because a flow learns to slip its peaks between the points of a fixed one; in evaluation it is
    fixed. After 1500 steps on two Gaussians of unlike widths, log s was off by 0.04 nats with a fixed grid of 16 x 16 points,
    which understates the loss, and by 0.002 on average (0.007 from one offset to the next) with a random one.

    Args:
        density: 'laplace' or 'gaussian', of Q: of scale sigma, or of standard deviation sigma, before the flow has learnt.
        normalise: compute log s; without it p is no density, as published.
        layers: coupling layers of the flow.
        hidden: units in each of a layer's two hidden layers.
        points: points of the grid along each axis.
    """

    levels: Tensor

    def __init__(
        self, density: str = "laplace", normalise: bool = True, layers: int = 6, hidden: int = 64, points: int = 16
    ):
        super().__init__()
        if density not in DENSITIES:
            raise DistilPoseError(f"density={density!r} must be one of {', '.join(DENSITIES)}.")
        if layers < 1 or hidden < 1 or points < 1:
            raise DistilPoseError(f"layers={layers}, hidden={hidden} and points={points} must be at least 1.")
        self.simple = DENSITIES[density]
        self.normalise = normalise
        self.flow = nn.ModuleList(Coupling(hidden) for _ in range(layers))
        # the lower edges of `points` intervals that Q gives equal probability; not persistent, as it follows from `points`
        self.register_buffer("levels", torch.arange(points) / points, persistent=False)

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
        sigmas = full_precision(sigmas).clamp(min=MINIMUM_SIGMA)
        rows, columns = size
        errors = (target - keypoints) * keypoints.new_tensor([columns, rows]) / sigmas
        log_likelihood = self.log_prob(errors) - sigmas.log().sum(dim=-1)
        return -(weights * log_likelihood).mean()

    def log_prob(self, errors: Tensor) -> Tensor:
        """Log density (...) of normalised errors (..., 2)."""
        simple = self.simple.log_prob(errors).sum(dim=-1)
        if not self.normalise:
            return simple + self._log_flow(errors)
        # errors and grid go through the flow together, which costs less than twice
        together = torch.cat([errors.flatten(0, -2), self._grid().to(errors.dtype)])
        log_flow, on_grid = self._log_flow(together).tensor_split([errors[..., 0].numel()])
        # the mean over points that are equally probable under Q: 1 / s = integral of Q G
        log_s = math.log(len(on_grid)) - on_grid.logsumexp(dim=0)
        return simple + log_flow.view_as(simple) + log_s

    def _log_flow(self, errors: Tensor) -> Tensor:
        """Log G (...) of errors (..., 2): of the base where the flow takes them, plus how much it stretches there."""
        kept, moved = errors.to(self.levels.dtype).split(1, dim=-1)
        stretch = torch.zeros_like(kept)
        for layer in self.flow:
            moved, log_scale = layer(kept, moved)
            stretch = stretch + log_scale
            kept, moved = moved, kept
        base = self.simple.log_prob(full_precision(kept)) + self.simple.log_prob(full_precision(moved))
        return (base + stretch).squeeze(-1).to(errors.dtype)

    def _grid(self) -> Tensor:
        """Points (points^2, 2), one in each of the cells that Q gives equal probability."""
        levels = full_precision(self.levels).unsqueeze(-1)
        offset = levels.new_full((2,), 0.5)
        if self.training:
            offset = torch.rand(2).to(offset)  # by the CPU's generator, which a resumed run takes up again
        # kept off 0 and 1, whose quantiles are infinite
        shares = levels + offset.clamp(0.001, 0.999) / len(levels)
        x, y = self.simple.quantile(shares).unbind(dim=-1)
        return torch.cartesian_prod(x, y)


class Coupling(nn.Module):
    """One affine coupling of RealNVP in two dimensions: moved -> moved exp(s) + t, both s and t read off the other axis.

    s is bounded to [-1, 1]. The last layer starts at zero, which makes the flow the identity. Hidden layers are smooth (SiLU
    where the published code has a leaky ReLU): the density is then smooth too, and a coarse grid gives its integral.

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
