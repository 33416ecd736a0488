"""Calibration of a student: its confidences against joint OKS, its sigmas against its errors."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata


def calibration(
    scores: np.ndarray, similarity: np.ndarray, bins: int = 12
) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """Mean similarity of joints by confidence.

    Args:
        scores: (n,) confidences, clipped to [0, 1]; values that are not finite are left out.
        similarity: (n,) object keypoint similarity of the same joints, in [0, 1].
        bins: number of equal parts of [0, 1].

    Returns:
        For each non-empty bin its mean confidence, its mean similarity and its count; and the expected calibration error
        (ECE), the mean gap between confidence and similarity weighted by count, nan without joints.
    """
    known = np.isfinite(scores) & np.isfinite(similarity)
    scores, similarity = scores[known].clip(0, 1), similarity[known]
    index = np.minimum((scores * bins).astype(int), bins - 1)
    counts = np.bincount(index, minlength=bins)
    used = counts > 0
    confidence = np.bincount(index, scores, bins)[used] / counts[used]
    mean = np.bincount(index, similarity, bins)[used] / counts[used]
    error = float((np.abs(confidence - mean) * counts[used]).sum() / counts.sum()) if used.any() else float("nan")
    return confidence, mean, counts[used], error


class SigmaCalibration(NamedTuple):
    """Errors by predicted sigma, both along one axis and in heat-map cells. All bins have the same number of values.

    Attributes:
        sigma: (b,) mean predicted sigma of each bin.
        rms: (b,) root mean squared error; equal to `sigma` for calibrated sigmas.
        mean_absolute: (b,) mean absolute error; sqrt(2 / pi) sigma for calibrated sigmas and Gaussian errors.
        counts: (b,) number of values in each bin.
        error: mean gap between `rms` and `sigma`, weighted by count, in cells; nan without values.
    """

    sigma: NDArray
    rms: NDArray
    mean_absolute: NDArray
    counts: NDArray
    error: float


def calibration_of_sigmas(sigmas: NDArray, errors: NDArray, bins: int = 12) -> SigmaCalibration:
    """Errors by predicted sigma.

    Args:
        sigmas: (n,) predicted standard deviations in cells; values that are not finite are left out.
        errors: (n,) prediction minus truth along the same axis, in cells.
        bins: largest number of bins.
    """
    known = np.isfinite(sigmas) & np.isfinite(errors)
    order = np.argsort(sigmas[known], kind="stable")
    sorted_sigmas, sorted_errors = sigmas[known][order].astype(float), errors[known][order].astype(float)
    counts = np.diff(np.linspace(0, len(order), bins + 1).round().astype(int))
    counts = counts[counts > 0]
    starts = np.cumsum(counts) - counts

    def mean(values: NDArray) -> NDArray:
        return np.add.reduceat(values, starts) / counts if len(counts) else values

    sigma, rms = mean(sorted_sigmas), np.sqrt(mean(sorted_errors**2))
    error = float((np.abs(rms - sigma) * counts).sum() / counts.sum()) if len(counts) else float("nan")
    return SigmaCalibration(sigma, rms, mean(np.abs(sorted_errors)), counts, error)


def spearman(a: NDArray, b: NDArray) -> float:
    """Spearman's rank correlation of (n,) and (n,), ties at their mean rank; nan if one of them is constant."""
    known = np.isfinite(a) & np.isfinite(b)
    first, second = rankdata(a[known]), rankdata(b[known])
    if len(first) < 2 or first.std() == 0 or second.std() == 0:
        return float("nan")
    return float(np.corrcoef(first, second)[0, 1])
