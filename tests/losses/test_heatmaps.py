from __future__ import annotations

import math

import pytest
import torch

from distilpose.losses import HeatmapCrossEntropy, HeatmapMSE


def peak_softmax(logits):
    return (logits - logits.amax(dim=(-2, -1), keepdim=True)).exp()


def test_cross_entropy_of_a_flat_map_is_the_log_of_the_cells():
    target = torch.zeros(1, 2, 4, 6)
    target[0, :, 1, 2] = 1
    loss = HeatmapCrossEntropy()(torch.ones(1, 2, 4, 6), target, torch.ones(1, 2))
    assert loss.item() == pytest.approx(math.log(24), rel=1e-6)


def test_cross_entropy_equals_torch_on_logits():
    draw = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 2, 4, 6, generator=draw, requires_grad=True)
    target = torch.rand(3, 2, 4, 6, generator=draw)
    probabilities = (target / target.sum(dim=(-2, -1), keepdim=True)).flatten(2).flatten(0, 1)
    expected = torch.nn.functional.cross_entropy(logits.flatten(2).flatten(0, 1), probabilities)
    (expected_gradient,) = torch.autograd.grad(expected, logits)
    loss = HeatmapCrossEntropy()(peak_softmax(logits), target, torch.ones(3, 2))
    (gradient,) = torch.autograd.grad(loss, logits)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    torch.testing.assert_close(gradient, expected_gradient, atol=1e-6, rtol=1e-4)


def test_cross_entropy_counts_labelled_joints_only():
    draw = torch.Generator().manual_seed(0)
    maps, target = torch.rand(2, 3, 4, 6, generator=draw), torch.rand(2, 3, 4, 6, generator=draw)
    weights = torch.tensor([[1.0, 0, 1], [0, 0, 1]])
    loss = HeatmapCrossEntropy()(maps, target, weights)
    each = [
        HeatmapCrossEntropy()(maps[n : n + 1, k : k + 1], target[n : n + 1, k : k + 1], torch.ones(1, 1)).item()
        for n, k in ((0, 0), (0, 2), (1, 2))
    ]
    assert loss.item() == pytest.approx(sum(each) / 3, rel=1e-5)


def test_cross_entropy_stays_finite_where_cells_underflow():
    logits = torch.tensor([[[[0.0, -500.0]]]], requires_grad=True)
    target = torch.tensor([[[[0.0, 1.0]]]])
    loss = HeatmapCrossEntropy()(peak_softmax(logits), target, torch.ones(1, 1))
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(logits.grad).all()


def test_no_labelled_joint_gives_zero_not_nan():
    maps = torch.rand(2, 3, 4, 6)
    for loss in (HeatmapCrossEntropy(), HeatmapMSE()):
        assert loss(maps, torch.zeros_like(maps), torch.zeros(2, 3)).item() == 0


def test_float32_under_mixed_precision():
    draw = torch.Generator().manual_seed(0)
    maps, target = torch.rand(2, 3, 4, 6, generator=draw), torch.rand(2, 3, 4, 6, generator=draw)
    for loss in (HeatmapCrossEntropy(), HeatmapMSE()):
        expected = loss(maps, target, torch.ones(2, 3))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert loss(maps, target, torch.ones(2, 3)).item() == pytest.approx(expected.item(), rel=1e-6)
