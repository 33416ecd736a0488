from __future__ import annotations

import pytest
import torch

from distilpose.diagnosis.term_gradients import bin_by_distance, concatenate_gradients, gradients_of_terms
from distilpose.losses import DistillationLoss
from distilpose.outputs import StudentOutput, TeacherOutput

SIZE = (16, 12)
EXTENT = torch.tensor([12.0, 16.0])


def gaussians(cells: torch.Tensor, sigma: float = 1.0) -> torch.Tensor:
    """(N, K, 16, 12) maps with their peak at these cells."""
    x, y = torch.arange(12.0), torch.arange(16.0)
    across = torch.exp(-((x - cells[..., :1]) ** 2) / (2 * sigma**2))
    down = torch.exp(-((y - cells[..., 1:]) ** 2) / (2 * sigma**2))
    return down[..., :, None] * across[..., None, :]


def measured(student, peak, truth, weights=None, loss=None, sigma=1.0):
    """Gradients for keypoints in cells, (N, K, 2)."""
    none = student.new_zeros(*student.shape[:2], 1)
    output = StudentOutput(student / EXTENT, none[..., 0], torch.full_like(student, sigma), none, none)
    weights = torch.ones(student.shape[:2]) if weights is None else weights
    loss = loss or DistillationLoss(1, 0, 0, 0, 1)
    return gradients_of_terms(loss, output, TeacherOutput(gaussians(peak)), truth / EXTENT, weights)


def test_gradient_of_the_regression_term():
    truth = torch.tensor([[[4.0, 5]], [[6.0, 9]]])
    student = truth + torch.tensor([[[3.0, 4]], [[0.0, -2]]])
    gradients = measured(student, truth, truth)
    # smooth L1 of beta 1 is d^2 / 2 for each coordinate in [0, 1], and the mean over x and y halves it
    expected = torch.stack([(torch.tensor([3.0, 4]) / EXTENT**2 / 2).norm(), torch.tensor(2.0 / 16**2 / 2)])
    torch.testing.assert_close(gradients.strength["regression"], expected)
    torch.testing.assert_close(gradients.error, torch.tensor([5.0, 2]))
    assert gradients.towards["regression"][1] == pytest.approx(1)


def test_gradient_of_the_simulated_heat_map_is_the_slope_of_the_loss():
    peak = torch.tensor([[[5.0, 8]]])
    student = peak + torch.tensor([1.5, 0])
    gradients = measured(student, peak, peak)
    step = 1e-3
    sides = [
        (gaussians(student + torch.tensor([sign * step, 0])) - gaussians(peak)).square().mean() for sign in (1, -1)
    ]
    slope = float(sides[0] - sides[1]) / (2 * step)
    assert gradients.strength["simulated_heatmap"].item() == pytest.approx(slope, rel=1e-3)
    assert gradients.towards["simulated_heatmap"].item() == pytest.approx(1, abs=1e-4)
    assert gradients.cells.item() == pytest.approx(1.5, abs=0.05)  # by DARK, below the cell
    assert measured(student, peak, peak, sigma=3.0).sigmas.item() == pytest.approx(0.5, abs=0.02)


def test_the_heat_map_term_vanishes_far_from_the_peak():
    peak = torch.tensor([[[3.0, 3]]])
    near, far = (measured(peak + away, peak, peak) for away in (1.0, 5.0))
    assert far.strength["simulated_heatmap"] < 1e-2 * near.strength["simulated_heatmap"]
    assert far.strength["regression"] == pytest.approx(5 * near.strength["regression"].item(), rel=1e-4)


def test_a_joints_part_does_not_depend_on_the_batch():
    generator = torch.Generator().manual_seed(0)
    student, peak = 3 + 6 * torch.rand(2, 4, 3, 2, generator=generator)
    full = measured(student, peak, peak)
    parts = concatenate_gradients(
        [measured(student[:1], peak[:1], peak[:1]), measured(student[1:], peak[1:], peak[1:])]
    )
    for name, strength in full.strength.items():
        torch.testing.assert_close(parts.strength[name], strength, rtol=1e-4, atol=1e-9)
    torch.testing.assert_close(parts.cells, full.cells)


def test_joints_without_weight_or_peak_are_left_out():
    places = torch.full((1, 3, 2), 5.0)
    none = places.new_zeros(1, 3, 1)
    output = StudentOutput(places / EXTENT, none[..., 0], torch.ones_like(places), none, none)
    maps = gaussians(places)
    maps[0, 1] = 0
    loss = DistillationLoss(1, 0, 0, 0, 1)
    gradients = gradients_of_terms(loss, output, TeacherOutput(maps), places / EXTENT, torch.tensor([[1.0, 1, 0]]))
    assert len(gradients.cells) == len(gradients.strength["regression"]) == 1
    assert output.keypoints.grad is None


def test_only_terms_that_reach_the_keypoints():
    place = torch.full((1, 2, 2), 5.0)
    assert set(measured(place, place, place).strength) == {"regression", "simulated_heatmap"}
    assert set(measured(place, place, place, loss=DistillationLoss(1, 0, 0, 1, 0)).strength) == {"regression"}


def test_bins_hold_their_lower_edge_and_skip_the_empty():
    peak = torch.full((1, 4, 2), 5.0)
    gradients = measured(peak + torch.tensor([[0.0, 0], [0, 2], [0, 2.5], [0, 6]]), peak, peak)
    gradients = gradients._replace(cells=torch.tensor([0.0, 2, 2.5, 40]))
    rows = bin_by_distance(gradients, gradients.cells)
    assert [(row["from"], row["to"], row["joints"]) for row in rows] == [(0, 0.5, 1), (2, 3, 2), (32, None, 1)]
    assert rows[1]["distance"] == 2.25
    assert rows[1]["strength"]["regression"] == pytest.approx(gradients.strength["regression"][1:3].mean().item())
