from __future__ import annotations

import functools
import itertools
import math

import pytest
import torch
from torch.distributions import Categorical, kl_divergence

from distilpose.losses.distributions import (
    divergence_loss,
    marginal_loss,
    moment_loss,
    moment_targets,
    normalised_maps,
)
from distilpose.losses.heatmaps import simulated_heatmaps

ROWS, COLUMNS = SIZE = (16, 12)
CELLS = torch.tensor([COLUMNS, ROWS]).double()
laplace_divergence = functools.partial(divergence_loss, shape="laplace")
LOSSES = [marginal_loss, divergence_loss, laplace_divergence, moment_loss]


def random_case(batch=3, joints=5, seed=0, dtype=torch.float64):
    """Students, noise for maps with negative cells, and weights with some joints unlabelled."""
    draw = torch.Generator().manual_seed(seed)

    def uniform(*shape):
        return torch.rand(*shape, generator=draw, dtype=torch.float64).to(dtype)

    weights = (uniform(batch, joints) > 0.3).to(dtype)
    return uniform(batch, joints, 2), uniform(batch, joints, 2) + 0.5, uniform(batch, joints, *SIZE) - 0.3, weights


def students(*cells, sigma=2.0):
    """Keypoints and sigmas (1, K, 2) of joints at the given (x, y) cells, and ones for weights."""
    keypoints = torch.tensor(cells).double().unsqueeze(0) / CELLS
    return keypoints, torch.full_like(keypoints, sigma), torch.ones(1, len(cells)).double()


def gaussians(keypoints, sigmas, size=SIZE):
    return simulated_heatmaps(keypoints, sigmas, size)[0]


def direct_divergence(log_along_x, log_along_y, heatmaps):
    """Sum T log(T / S) (N, K) over all cells (H, W), S the product of the axes' shares."""
    log_student = log_along_y.unsqueeze(-1) + log_along_x.unsqueeze(-2)
    maps = heatmaps.clamp(min=0)
    maps = maps / maps.sum(dim=(-2, -1), keepdim=True)
    return (torch.xlogy(maps, maps) - maps * log_student).sum(dim=(-2, -1))


def laplace_shares(mean, scale, cells):
    """The share of a Laplace in each cell of one axis, from its cumulative distribution function."""
    density = torch.distributions.Laplace(mean.unsqueeze(-1), scale.unsqueeze(-1))
    cells = torch.arange(cells)
    return density.cdf(cells + 0.5) - density.cdf(cells - 0.5)


def test_normalised_maps_cut_what_is_negative_or_low_and_sum_to_one():
    maps = torch.tensor([[-1.0, 0.02], [0.2, 0.1]]).expand(1, 1, 2, 2)
    # a cell at the floor itself stays: 0.1 is half of the peak, exactly
    for scale, floor in itertools.product((1.0, 1e-6, 1e6, 1e-30), (0.2, 0.5)):
        shares, known = normalised_maps(scale * maps, floor)
        torch.testing.assert_close(shares[0, 0], torch.tensor([[0, 0], [2 / 3, 1 / 3]]))
        assert known.item() == 1
    assert normalised_maps(maps, floor=0)[0][0, 0, 0, 1].item() == pytest.approx(0.02 / 0.32)


@pytest.mark.parametrize("loss", LOSSES)
def test_maps_without_a_positive_cell_do_not_count(loss):
    keypoints, sigmas, heatmaps, weights = random_case()
    weights[:] = 1
    heatmaps[:, 1] = 0
    heatmaps[:, 2] = -1
    keypoints.requires_grad_()
    value = loss(keypoints, sigmas, heatmaps, weights)
    value.backward()
    assert keypoints.grad[:, 1:3].abs().max() == 0
    assert keypoints.grad[:, 0].abs().min() > 0
    # the mean still runs over them
    others = [0, 3, 4]
    rest = loss(keypoints[:, others], sigmas[:, others], heatmaps[:, others], weights[:, others])
    assert value.item() == pytest.approx(0.6 * rest.item(), rel=1e-12)


@pytest.mark.parametrize("loss", LOSSES)
def test_weights_multiply_their_joints_term(loss):
    keypoints, sigmas, heatmaps, weights = random_case()
    each = torch.stack(
        [
            loss(keypoints[n : n + 1, k : k + 1], sigmas[n : n + 1, k : k + 1], heatmaps[n : n + 1, k : k + 1], one)
            for n, k in torch.cartesian_prod(torch.arange(3), torch.arange(5)).tolist()
            for one in [torch.ones(1, 1).double()]
        ]
    ).view(3, 5)
    assert each.min() > 0
    weights = weights * torch.arange(1, 6)
    expected = (each * weights).mean()
    torch.testing.assert_close(loss(keypoints, sigmas, heatmaps, weights), expected)


@pytest.mark.parametrize("loss", LOSSES)
def test_gradients(loss):
    keypoints, sigmas, heatmaps, weights = random_case()
    inputs = (keypoints.requires_grad_(), sigmas.requires_grad_())
    assert torch.autograd.gradcheck(lambda *student: loss(*student, heatmaps, weights), inputs)


@pytest.mark.parametrize("loss", LOSSES)
def test_far_and_collapsed_students_stay_finite(loss):
    heatmaps = torch.rand(1, 5, *SIZE, generator=torch.Generator().manual_seed(0))
    heatmaps[0, 4] = 0
    heatmaps[0, 4, 3, 3] = 1e-30
    keypoints = torch.tensor([[[100.0, -100.0], [0.5, 0.5], [0.5, 0.5], [1.0, 0.0], [0.4, 0.5]]], requires_grad=True)
    sigmas = torch.tensor([[[1.0, 1.0], [0.0, 1e-6], [1e6, 1e6], [1e-3, 5.0], [1.0, 1.0]]], requires_grad=True)
    value = loss(keypoints, sigmas, heatmaps, torch.ones(1, 5))
    value.backward()
    for tensor in (value, keypoints.grad, sigmas.grad):
        assert torch.isfinite(tensor).all()


def test_marginals_are_those_of_the_simulated_heatmap():
    """The squared differences, computed from the two full maps."""
    keypoints, sigmas, heatmaps, weights = random_case()
    student, teacher = gaussians(keypoints, sigmas), heatmaps.clamp(min=0)
    expected = 0
    for axis in (-2, -1):
        difference = [m.sum(axis) / m.sum((-2, -1)).unsqueeze(-1) for m in (student, teacher)]
        expected = expected + (difference[0] - difference[1]).square().sum(dim=-1)
    loss = marginal_loss(keypoints, sigmas, heatmaps, weights, floor=0)
    torch.testing.assert_close(loss, (weights * expected).mean())


@pytest.mark.parametrize("loss", [marginal_loss, divergence_loss])
def test_a_student_like_the_teacher_has_no_loss(loss):
    """Also at the border, where the map contains half of the Gaussian, and for any scale of the map."""
    keypoints, sigmas, weights = students((5.3, 7.8), (0.0, 0.0), (12.0, 3.0))
    for scale in (1, 0.2):
        value = loss(keypoints, sigmas, scale * gaussians(keypoints, sigmas), weights, floor=0)
        assert value.item() == pytest.approx(0, abs=1e-12)


def test_divergence_of_gaussians_is_that_over_all_cells():
    keypoints, sigmas, heatmaps, weights = random_case()
    exponents = (-0.5 * ((torch.arange(n) - (keypoints * CELLS)[..., a, None]) / sigmas[..., a, None]) ** 2
                 for a, n in ((0, COLUMNS), (1, ROWS)))  # fmt: skip
    x, y = (Categorical(logits=exponent) for exponent in exponents)
    loss = divergence_loss(keypoints, sigmas, heatmaps, weights, floor=0)
    torch.testing.assert_close(loss, (weights * direct_divergence(x.logits, y.logits, heatmaps)).mean())
    # torch's divergence of the two maps is the same, if no share underflows
    sigmas = sigmas + 2
    student, teacher = gaussians(keypoints, sigmas).flatten(2), heatmaps.clamp(min=0).flatten(2)
    expected = kl_divergence(Categorical(teacher), Categorical(student))
    loss = divergence_loss(keypoints, sigmas, heatmaps, weights, floor=0)
    torch.testing.assert_close(loss, (weights * expected).mean())


def test_divergence_of_laplaces_is_that_over_all_cells():
    keypoints, sigmas, heatmaps, weights = random_case()
    x, y = (laplace_shares((keypoints * CELLS)[..., a], sigmas[..., a], n) for a, n in ((0, COLUMNS), (1, ROWS)))
    loss = divergence_loss(keypoints, sigmas, heatmaps, weights, floor=0, shape="laplace")
    torch.testing.assert_close(loss, (weights * direct_divergence(x.log(), y.log(), heatmaps)).mean())
    keypoints, sigmas, weights = students((5.3, 7.8), sigma=0.2)
    x, y = (laplace_shares((keypoints * CELLS)[..., a], sigmas[..., a], n) for a, n in ((0, COLUMNS), (1, ROWS)))
    same = divergence_loss(keypoints, sigmas, y.unsqueeze(-1) * x.unsqueeze(-2), weights, floor=0, shape="laplace")
    assert same.item() == pytest.approx(0, abs=1e-7)


def gradient_per_cell(loss, distance, size=(64, 64)):
    """The loss's gradient per cell for a student `distance` cells to the right of the teacher's peak, both with sigma 2."""
    extent = torch.tensor(size[::-1])
    teacher = torch.tensor([[[12.0, 32.0]]]).double() / extent
    student = (teacher + torch.tensor([distance, 0.0]) / extent).requires_grad_()
    sigmas = torch.full_like(teacher, 2.0)
    heatmaps = gaussians(teacher, sigmas, size)
    loss(student, sigmas, heatmaps, torch.ones(1, 1).double()).backward()
    return (student.grad[0, 0] / extent)[0].item()


def test_the_gradient_towards_a_distant_teacher():
    """It grows with the distance (Gaussian), is constant (Laplace), or vanishes (squared differences)."""
    for distance in (4.0, 16.0, 32.0):
        assert gradient_per_cell(divergence_loss, distance) == pytest.approx(distance / 2**2, rel=1e-3)
        assert gradient_per_cell(laplace_divergence, distance + 4) == pytest.approx(1 / 2, rel=1e-2)
    assert gradient_per_cell(marginal_loss, 2.0) > 1e-2
    assert abs(gradient_per_cell(marginal_loss, 32.0)) < 1e-12
    # outside the map the gradient does not vanish
    assert gradient_per_cell(divergence_loss, 80.0) > 10
    assert gradient_per_cell(laplace_divergence, 80.0) == pytest.approx(1 / 2, rel=1e-3)


def test_the_best_sigma_of_the_divergence_is_the_teachers_deviation():
    keypoints, sigmas, weights = students((5.5, 8.5), sigma=1.2)
    heatmaps = gaussians(keypoints, sigmas)
    x = torch.arange(COLUMNS) - 5.5
    share = torch.exp(-0.5 * (x / 1.2) ** 2)
    best = {"gaussian": 1.2, "laplace": ((share * x.abs()).sum() / share.sum()).item()}
    for shape, expected in best.items():
        free = torch.full_like(sigmas, 2.0).requires_grad_()
        optimizer = torch.optim.LBFGS([free], line_search_fn="strong_wolfe", max_iter=50)

        def step(free=free, optimizer=optimizer, shape=shape):
            optimizer.zero_grad()
            loss = divergence_loss(keypoints, free, heatmaps, weights, floor=0, shape=shape)
            loss.backward()
            return loss

        optimizer.step(step)
        # the discrete Laplace's mean absolute deviation differs from its scale by terms of the cell's size
        assert free[0, 0, 0].item() == pytest.approx(expected, rel=1e-4 if shape == "gaussian" else 0.1)


def test_moments_of_a_gaussian():
    keypoints, sigmas, _ = students((20.3, 30.8), (24.0, 18.5), sigma=2.0)
    keypoints, sigmas = keypoints * CELLS / torch.tensor([48, 64]), sigmas * torch.tensor([1.0, 1.5])
    heatmaps = gaussians(keypoints, sigmas, (64, 48))
    for floor, tolerance in ((0.0, 1e-5), (0.01, 0.01), (0.1, 0.05)):
        mean, deviation = moment_targets(heatmaps, floor)
        torch.testing.assert_close(
            mean * torch.tensor([48, 64]), keypoints * torch.tensor([48, 64]), atol=tolerance, rtol=0
        )
        torch.testing.assert_close(deviation, sigmas, atol=tolerance, rtol=0)
    loss = moment_loss(keypoints, sigmas, heatmaps, torch.ones(1, 2).double(), floor=0)
    assert loss.item() == pytest.approx(0, abs=1e-10)


@pytest.mark.parametrize("noise", [0.01, 0.02])
def test_the_floor_keeps_noise_out_of_the_moments(noise):
    """Gaussians of sigma 2 at random positions on 64 x 48 cells."""
    draw = torch.Generator().manual_seed(0)
    extent = torch.tensor([48.0, 64.0])
    keypoints = 0.25 + 0.5 * torch.rand(20, 10, 2, generator=draw)
    sigmas = torch.full_like(keypoints, 2.0)
    heatmaps = gaussians(keypoints, sigmas, (64, 48))
    heatmaps = heatmaps + noise * torch.randn(heatmaps.shape, generator=draw)
    mean, deviation = moment_targets(heatmaps)
    assert ((mean - keypoints) * extent).square().mean().sqrt() < 0.05
    assert (deviation - sigmas).abs().mean() < 0.05
    # without the floor, the moments are those of the noise
    assert (moment_targets(heatmaps, floor=0)[1] - sigmas).abs().mean() > 5


def test_moment_loss_in_cells():
    keypoints, sigmas, weights = students((5.0, 8.0), sigma=1.0)
    heatmaps = torch.zeros(1, 1, *SIZE).double()
    heatmaps[0, 0, 11, 5] = 1  # three cells below, with deviation 0
    expected = (3 - 0.5) + 2 * 0.5 * 1.0**2
    assert moment_loss(keypoints, sigmas, heatmaps, weights).item() == pytest.approx(expected)
    assert math.isclose(moment_targets(heatmaps)[0][0, 0, 1].item(), 11 / ROWS)
