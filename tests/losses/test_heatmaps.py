from __future__ import annotations

import math

import pytest
import torch

from distilpose.data.codec import encode_heatmaps
from distilpose.losses import HeatmapCrossEntropy, HeatmapMSE
from distilpose.losses.heatmaps import DOUBT, informed_heatmaps


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


def gaussian(cell, sigma, size=(48, 40)):
    """A map (1, 1, rows, columns) of a joint at (x, y) cells."""
    keypoint = torch.tensor([[cell]]) / torch.tensor([size[1], size[0]])
    return keypoint, encode_heatmaps(keypoint, torch.ones(1, 1), size, sigma)[0]


def moments(heatmaps):
    """Mean (x, y) in cells and standard deviation along x of a map."""
    share = heatmaps[0, 0] / heatmaps.sum()
    x, y = torch.arange(share.shape[1]), torch.arange(share.shape[0])
    mean = ((share.sum(0) * x).sum(), (share.sum(1) * y).sum())
    return *map(float, mean), float((share.sum(0) * (x - mean[0]) ** 2).sum().sqrt())


def test_informed_maps_are_the_product_of_map_and_label(monkeypatch):
    monkeypatch.setattr("distilpose.losses.heatmaps.DOUBT", 0.0)
    _, heatmaps = gaussian((20.0, 24.0), 3.0)
    label, _ = gaussian((23.0, 24.0), 2.0)
    x, y, sigma = moments(informed_heatmaps(0.8 * heatmaps, label, torch.ones(1, 1), 2.0))
    # the product of two Gaussians: precisions add, and the mean is weighted by them
    assert (x, y) == (pytest.approx((20 / 9 + 23 / 4) / (1 / 9 + 1 / 4), abs=1e-3), pytest.approx(24, abs=1e-3))
    assert sigma == pytest.approx((1 / 9 + 1 / 4) ** -0.5, rel=1e-3)


def test_a_wrong_map_becomes_the_labels_gaussian():
    _, heatmaps = gaussian((6.0, 6.0), 1.5)
    label, expected = gaussian((30.0, 40.0), 2.0)
    informed = informed_heatmaps(0.7 * heatmaps, label, torch.ones(1, 1), 2.0)
    torch.testing.assert_close(informed, 0.7 * expected, atol=1e-4, rtol=0)
    assert 0 < DOUBT < 1


def test_without_a_label_a_map_does_not_change():
    draw = torch.Generator().manual_seed(0)
    heatmaps = torch.randn(2, 3, 8, 6, generator=draw)
    heatmaps[1, 2] = 0  # a joint the teacher does not know
    weights = torch.tensor([[1.0, 0, 1], [0, 0, 1]])
    informed = informed_heatmaps(heatmaps, torch.rand(2, 3, 2, generator=draw), weights, 1.0)
    assert torch.equal(informed[weights == 0], heatmaps[weights == 0])
    assert not torch.equal(informed[0, 0], heatmaps[0, 0])
    assert informed[0, 0].max() == pytest.approx(heatmaps[0, 0].max().item(), rel=1e-6)
    assert (informed[1, 2] == 0).all()
