from __future__ import annotations

import math

import pytest
import torch
from torch.distributions import Laplace, MixtureSameFamily, MultivariateNormal

from distilpose.losses.likelihood import MINIMUM_SIGMA, ResidualLogLikelihood

SIZE = (16, 12)  # rows, columns


def learnt(amount=0.3, **options):
    """A flow far from the identity, in eval mode and float64."""
    torch.manual_seed(0)
    loss = ResidualLogLikelihood(**options).double().eval()
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
    """Grid points (M, 2) of a square around 0."""
    line = torch.arange(-reach, reach + step / 2, step, dtype=torch.float64)
    return torch.cartesian_prod(line, line)


def log_likelihoods(loss, keypoints, sigmas, target, size=SIZE):
    """Each joint's log-likelihood: the derivative of the loss with respect to the joint's weight."""
    weights = torch.ones_like(keypoints[..., 0], requires_grad=True)
    (gradient,) = torch.autograd.grad(loss(keypoints, sigmas, target, weights, size), weights)
    return -gradient * weights.numel()


def test_an_untrained_flow_is_the_laplace():
    keypoints, sigmas, target, weights = random_case()
    cells = torch.tensor([12.0, 16.0]).double()
    expected = (
        Laplace(keypoints * cells, (sigmas.square() + MINIMUM_SIGMA**2).sqrt()).log_prob(target * cells).sum(dim=-1)
    )
    loss = ResidualLogLikelihood().double()
    torch.testing.assert_close(log_likelihoods(loss, keypoints, sigmas, target), expected)
    torch.testing.assert_close(loss(keypoints, sigmas, target, weights, SIZE), -(weights * expected).mean())


@pytest.mark.parametrize("layers", [1, 2, 6])
def test_the_density_integrates_to_one(layers):
    loss = learnt(layers=layers, hidden=16)
    with torch.no_grad():
        log_prob = loss.log_prob(plane(40, 0.1))
    plain = Laplace(0.0, 1.0).log_prob(plane(40, 0.1)).sum(dim=-1)
    assert (log_prob - plain).abs().max() > 1  # the flow has changed the density
    assert (log_prob.exp().sum() * 0.1**2).item() == pytest.approx(1, abs=2e-3)


def test_the_density_of_the_position_integrates_to_one():
    """The integral over the joint's position in cells, for fixed sigmas of the student."""
    sigmas, centre = torch.tensor([1.6, 0.7]).double(), torch.tensor([3.0, 5.0]).double()
    cells = torch.tensor([12.0, 16.0]).double()
    target = ((centre + plane(40, 0.1) * sigmas) / cells).unsqueeze(0)
    loss = learnt(hidden=16)
    log_prob = log_likelihoods(loss, (centre / cells).expand_as(target), sigmas.expand_as(target), target)
    assert (log_prob.exp().sum() * 0.1**2 * sigmas.prod()).item() == pytest.approx(1, abs=2e-3)


def test_gradients():
    loss = learnt(layers=3, hidden=3)
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
    # the mean runs over all five joints, and one of them counts as 0
    kept = [0, 1, 3, 4]
    rest = loss(keypoints[:, kept], sigmas[:, kept], target[:, kept], weights[:, kept], SIZE)
    assert value.item() == pytest.approx(0.8 * rest.item(), rel=1e-12)
    assert loss(keypoints, sigmas, target, 0 * weights, SIZE).item() == 0


def test_far_errors_and_collapsed_sigmas_stay_finite():
    loss = learnt().float().train()
    keypoints = torch.tensor([[[0.5, 0.5], [1e3 / 12, -1e3 / 16], [0.5, 0.5], [1.0, 0.0]]], requires_grad=True)
    sigmas = torch.tensor([[[1.0, 1.0], [1.0, 2.0], [0.0, 1e-9], [1e-6, 1e6]]], requires_grad=True)
    value = loss(keypoints, sigmas, torch.full((1, 4, 2), 0.5), torch.ones(1, 4), SIZE)
    value.backward()
    for tensor in (value, keypoints.grad, sigmas.grad, *(p.grad for p in loss.parameters())):
        assert torch.isfinite(tensor).all()
    # the gain of a small sigma is bounded, and a gradient can increase the sigma again
    certain = log_likelihoods(loss, *(torch.full((1, 1, 2), v) for v in (0.5, 0.0, 0.5)))
    at_minimum = loss.log_prob(torch.zeros(1, 1, 2)) - 2 * math.log(MINIMUM_SIGMA)
    torch.testing.assert_close(certain, at_minimum)
    tiny = torch.full((1, 1, 2), MINIMUM_SIGMA / 10, requires_grad=True)
    ResidualLogLikelihood()(
        torch.full((1, 1, 2), 0.6), tiny, torch.full((1, 1, 2), 0.5), torch.ones(1, 1), SIZE
    ).backward()
    assert (tiny.grad < 0).all()


def test_the_gradient_of_an_untrained_flow_does_not_grow_with_the_error():
    loss = ResidualLogLikelihood().double()
    for error in ([1e2, 1e2], [1e3, 1e3], [1e3, 0.3], [0.3, 1e3]):
        errors = torch.tensor([error], dtype=torch.float64, requires_grad=True)
        loss.log_prob(errors).backward()
        torch.testing.assert_close(errors.grad, -torch.ones_like(errors))


def swapped_sides(samples):
    """Errors (samples, 2) of a student that confuses left and right in 20 % of the cases, and their entropy in nats."""
    kinds = torch.distributions.Categorical(torch.tensor([0.8, 0.2]))
    peaks = MultivariateNormal(torch.tensor([[0.0, 0.0], [4.0, 0.0]]), 0.25 * torch.eye(2))
    density = MixtureSameFamily(kinds, peaks)
    errors = density.sample((samples,))
    return errors, -density.log_prob(errors).mean().item()


def test_training_finds_the_density_of_the_errors():
    """The likelihood rises towards that of the true density, and not above it, because it is a density."""
    torch.manual_seed(0)
    errors, entropy = swapped_sides(20000)
    batches = errors[torch.randint(len(errors), (250, 256))]
    loss = ResidualLogLikelihood(hidden=32)
    optimizer = torch.optim.Adam(loss.parameters(), 5e-3)
    for batch in batches:
        optimizer.zero_grad()
        (-loss.log_prob(batch).mean()).backward()
        optimizer.step()
    with torch.no_grad():
        end = -loss.log_prob(errors).mean().item()
    start = -Laplace(0.0, 1.0).log_prob(errors).sum(dim=-1).mean().item()
    assert entropy - 0.02 < end < entropy + 0.25 * (start - entropy)


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


@pytest.mark.slow
def test_compiles():
    case = random_case(dtype=torch.float32)
    loss = learnt().float()
    expected = loss(*case, SIZE).item()
    compiled = torch.compile(loss, backend="aot_eager", fullgraph=True)
    assert compiled(*case, SIZE).item() == pytest.approx(expected, rel=1e-5)
