from __future__ import annotations

import numpy as np
import pytest

from distilpose.evaluation.calibration import calibration, calibration_of_sigmas, spearman


def test_calibrated_sigmas_have_no_error():
    draw = np.random.default_rng(0)
    sigmas = draw.uniform(0.5, 4, 200_000)
    result = calibration_of_sigmas(sigmas, draw.normal(0, sigmas))
    assert result.error < 0.03
    np.testing.assert_allclose(result.rms, result.sigma, rtol=0.03)
    np.testing.assert_allclose(result.mean_absolute, np.sqrt(2 / np.pi) * result.sigma, rtol=0.03)


def test_bins_of_equal_size_are_weighted_by_count():
    sigmas, errors = np.array([1.0, 1, 1, 3, 3]), np.array([2.0, -2, 2, 3, -3])
    result = calibration_of_sigmas(sigmas, errors, bins=2)
    assert result.counts.tolist() == [2, 3]
    assert result.sigma.tolist() == pytest.approx([1, 7 / 3])
    rms = np.sqrt(22 / 3)
    assert result.rms.tolist() == pytest.approx([2, rms])
    assert result.mean_absolute.tolist() == pytest.approx([2, 8 / 3])
    assert result.error == pytest.approx((2 * 1 + 3 * (rms - 7 / 3)) / 5)


def test_few_values_and_none():
    assert calibration_of_sigmas(np.array([2.0, np.nan]), np.array([-1.0, 1.0])).error == 1
    empty = calibration_of_sigmas(np.zeros(0), np.zeros(0))
    assert np.isnan(empty.error)
    assert empty.counts.size == empty.sigma.size == 0
    assert np.isnan(calibration(np.zeros(0), np.zeros(0))[3])
    assert np.isnan(calibration(np.array([np.nan]), np.ones(1))[3])


def test_spearman_depends_on_order_only():
    values = np.array([0.1, 5.0, 2.0, 100.0])
    assert spearman(values, np.exp(values / 10)) == pytest.approx(1)
    assert spearman(values, -(values**3)) == pytest.approx(-1)
    assert np.isnan(spearman(values, np.ones(4)))
    assert np.isnan(spearman(np.zeros(0), np.zeros(0)))


def test_spearman_with_ties_equals_scipy():
    stats = pytest.importorskip("scipy.stats")
    draw = np.random.default_rng(3)
    a = draw.integers(0, 9, 300).astype(float)
    b = a + draw.integers(0, 12, 300)
    assert spearman(a, b) == pytest.approx(stats.spearmanr(a, b).statistic)
