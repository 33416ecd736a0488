from __future__ import annotations

import pytest
import torch
from torch.distributions import Laplace, MixtureSameFamily, MultivariateNormal, Normal

from distilpose.errors import DistilPoseError
from distilpose.losses.likelihood import MINIMUM_SIGMA, ResidualLogLikelihood

SIZE = (16, 12)  # rows, columns
STANDARD = {"laplace": Laplace, "gaussian": Normal}
both = pytest.mark.parametrize("density", ["laplace", "gaussian"])


def learnt(density="laplace", amount=0.3, **options):
    """A flow far from the identity, in evaluation and float64."""
    torch.manual_seed(0)
    loss = ResidualLogLikelihood(density, **options).double().eval()
    for layer in loss.flow:
        torch.nn.init.normal_(layer.net[-1].weight, std=amount)
        torch.nn.init.normal_(layer.net[-1].bias, std=amount)
    return loss


def random_case(batch=3, joints=5, dtype=torch.float64):
    draw = torch.Generator().manual_seed(1)

    def uniform(*shape):
        return torch.rand(*shape, generator=draw, dtype=torch.float64).to(dtype)

    weights = (uniform(batch, joints) > 0.3).to(dtype)
    return uniform(batch, joints, 2), uniform(batch, joints, 2) + 0.5, uniform(batch, joints, 2), weights


def plane(reach, step):
    """Points (M, 2) of a square around 0, for sums over the plane that know nothing of the loss's own grid."""
    line = torch.arange(-reach, reach + step / 2, step, dtype=torch.float64)
    return torch.cartesian_prod(line, line)


def log_likelihoods(loss, keypoints, sigmas, target, size=SIZE):
    """Each joint's log-likelihood, read off the loss: what it changes by with the joint's weight."""
    weights = torch.ones_like(keypoints[..., 0], requires_grad=True)
    (gradient,) = torch.autograd.grad(loss(keypoints, sigmas, target, weights, size), weights)
    return -gradient * weights.numel()


@both
def test_an_untrained_flow_is_the_plain_density(density):
    keypoints, sigmas, target, weights = random_case()
    cells = torch.tensor([12.0, 16.0]).double()
    expected = STANDARD[density](keypoints * cells, sigmas).log_prob(target * cells).sum(dim=-1)
    for normalise in (True, False):
        loss = ResidualLogLikelihood(density, normalise).double().eval()
        each = log_likelihoods(loss, keypoints, sigmas, target)
        if normalise:
            torch.testing.assert_close(each, expected, atol=1e-2, rtol=0)
            torch.testing.assert_close(loss(keypoints, sigmas, target, weights, SIZE), -(weights * each).mean())
        # without log s it is right up to a constant
        torch.testing.assert_close(each - each.mean(), expected - expected.mean())


def test_an_untrained_flow_is_the_laplace_to_the_digit():
    errors = 3 * torch.randn(50, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    expected = Laplace(0.0, 1.0).log_prob(errors).sum(dim=-1)
    torch.testing.assert_close(ResidualLogLikelihood().double().eval().log_prob(errors), expected)


@both
@pytest.mark.parametrize(("points", "tolerance"), [(16, 2e-2), (64, 1e-3)])
def test_the_density_integrates_to_one(density, points, tolerance):
    with torch.no_grad():
        log_prob = learnt(density, points=points).log_prob(plane(12, 0.1))
    assert log_prob.exp().max() > 0.05  # it is no flat one
    assert (log_prob.exp().sum() * 0.1**2).item() == pytest.approx(1, abs=tolerance)


def test_the_density_of_the_position_integrates_to_one():
    """Over the places in cells where a joint may be whose student has given sigmas."""
    sigmas, centre = torch.tensor([1.6, 0.7]).double(), torch.tensor([3.0, 5.0]).double()
    cells = torch.tensor([12.0, 16.0]).double()
    target = ((centre + plane(12, 0.1) * sigmas) / cells).unsqueeze(0)
    loss = learnt(points=64, hidden=16)
    log_prob = log_likelihoods(loss, (centre / cells).expand_as(target), sigmas.expand_as(target), target)
    assert (log_prob.exp().sum() * 0.1**2 * sigmas.prod()).item() == pytest.approx(1, abs=1e-3)


def test_the_random_grid_agrees_with_a_fine_one():
    errors = torch.zeros(1, 2, dtype=torch.float64)
    fine = learnt(points=200).log_prob(errors).item()
    coarse = learnt().train()
    values = torch.tensor([coarse.log_prob(errors).item() for _ in range(50)])
    assert values.std() > 0
    assert values.mean().item() == pytest.approx(fine, abs=5e-3)
    assert (values - fine).abs().max() < 5e-2
    coarse.eval()
    assert coarse.log_prob(errors).item() == coarse.log_prob(errors).item()


@both
@pytest.mark.parametrize("normalise", [True, False])
def test_gradients(density, normalise):
    loss = learnt(density, normalise=normalise, layers=3, hidden=3, points=4)
    keypoints, sigmas, target, weights = random_case(batch=2, joints=2)
    inputs = (keypoints.requires_grad_(), sigmas.requires_grad_(), *loss.parameters())
    assert torch.autograd.gradcheck(lambda *_: loss(keypoints, sigmas, target, weights, SIZE), inputs)


def test_joints_of_weight_zero_do_not_matter():
    loss = learnt()
    keypoints, sigmas, target, weights = random_case()
    weights[:] = 1
    weights[:, 2] = 0
    keypoints.requires_grad_()
    sigmas.requires_grad_()
    value = loss(keypoints, sigmas, target, weights, SIZE)
    value.backward()
    assert keypoints.grad[:, 2].abs().max() == 0
    assert sigmas.grad[:, 2].abs().max() == 0
    assert keypoints.grad[:, :2].abs().min() > 0
    assert sigmas.grad[:, 3:].abs().min() > 0
    # the mean runs over all joints, so that one in five that counts 0 takes a fifth off
    kept = [0, 1, 3, 4]
    rest = loss(keypoints[:, kept], sigmas[:, kept], target[:, kept], weights[:, kept], SIZE)
    assert value.item() == pytest.approx(0.8 * rest.item(), rel=1e-12)
    assert loss(keypoints, sigmas, target, 0 * weights, SIZE).item() == 0


@both
def test_far_errors_and_collapsed_sigmas_stay_finite(density):
    loss = learnt(density).float().train()
    keypoints = torch.tensor([[[0.5, 0.5], [1e3 / 12, -1e3 / 16], [0.5, 0.5], [1.0, 0.0]]], requires_grad=True)
    sigmas = torch.tensor([[[1.0, 1.0], [1.0, 2.0], [0.0, 1e-9], [1e-6, 1e6]]], requires_grad=True)
    value = loss(keypoints, sigmas, torch.full((1, 4, 2), 0.5), torch.ones(1, 4), SIZE)
    value.backward()
    for tensor in (value, keypoints.grad, sigmas.grad, *(p.grad for p in loss.parameters())):
        assert torch.isfinite(tensor).all()
    # a sure student gains no more than the smallest sigma gives
    sure = log_likelihoods(loss.eval(), *(torch.full((1, 1, 2), v) for v in (0.5, 0.0, 0.5)))
    at_minimum = log_likelihoods(loss, *(torch.full((1, 1, 2), v) for v in (0.5, MINIMUM_SIGMA, 0.5)))
    assert sure.item() == at_minimum.item()


def test_the_pull_of_a_far_error_is_bounded():
    """A Laplace's, whatever the flow has learnt: ten times the error, about the same gradient."""
    loss = learnt()
    near, far = (torch.full((1, 2), d, dtype=torch.float64, requires_grad=True) for d in (1e2, 1e3))
    loss.log_prob(near).backward()
    loss.log_prob(far).backward()
    assert far.grad.norm() < 2 * near.grad.norm()


def swapped_sides(samples):
    """Errors (samples, 2) of a student that takes left for right one time in five, and their entropy in nats."""
    kinds = torch.distributions.Categorical(torch.tensor([0.8, 0.2]))
    places = MultivariateNormal(torch.tensor([[0.0, 0.0], [4.0, 0.0]]), 0.25 * torch.eye(2))
    density = MixtureSameFamily(kinds, places)
    errors = density.sample((samples,))
    return errors, -density.log_prob(errors).mean().item()


def test_training_finds_the_density_of_the_errors():
    """The likelihood rises towards the true density's but, being of a density, not past it."""
    torch.manual_seed(0)
    errors, entropy = swapped_sides(20000)
    batches = errors[torch.randint(len(errors), (250, 256))]
    end = {}
    for normalise in (True, False):
        loss = ResidualLogLikelihood(normalise=normalise, hidden=32)
        optimiser = torch.optim.Adam(loss.parameters(), 5e-3)
        for batch in batches:
            optimiser.zero_grad()
            (-loss.log_prob(batch).mean()).backward()
            optimiser.step()
        loss.normalise = True
        with torch.no_grad():
            end[normalise] = -loss.eval().log_prob(errors).mean().item()
    start = -Laplace(0.0, 1.0).log_prob(errors).sum(dim=-1).mean().item()
    assert entropy - 0.02 < end[True] < entropy + 0.25 * (start - entropy)
    # trained without log s, as published, the same flow finds another density, under which the errors are less likely
    assert end[False] > end[True] + 0.05


def test_float32_under_mixed_precision_and_for_any_input():
    keypoints, sigmas, target, weights = random_case()
    loss = learnt().float()
    expected = loss(keypoints, sigmas, target, weights, SIZE)
    assert expected.dtype == torch.float64
    narrow = [tensor.float() for tensor in (keypoints, sigmas, target, weights)]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = loss(*narrow, SIZE)
    assert value.dtype == torch.float32
    assert value.item() == pytest.approx(expected.item(), rel=1e-5)


def test_only_the_flow_is_saved():
    loss = ResidualLogLikelihood()
    assert all(name.startswith("flow.") for name in loss.state_dict())
    assert loss.log_prob(torch.zeros(0, 2)).shape == (0,)
    assert loss.log_prob(torch.zeros(4, 3, 2)).shape == (4, 3)


def test_bad_options_are_named():
    with pytest.raises(DistilPoseError, match="density='cauchy' must be one of laplace, gaussian"):
        ResidualLogLikelihood("cauchy")
    with pytest.raises(DistilPoseError, match="points=0"):
        ResidualLogLikelihood(points=0)


@pytest.mark.slow
def test_compiles():
    case = random_case(dtype=torch.float32)
    loss = learnt().float()
    expected = loss(*case, SIZE).item()
    # in training, whose grid is random, so that the numbers are alike only
    assert torch.compile(loss.train(), fullgraph=True)(*case, SIZE).item() == pytest.approx(expected, abs=0.05)
