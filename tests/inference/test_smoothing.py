from __future__ import annotations

import math

import numpy as np
import pytest

from distilpose.inference.smoothing import OneEuroFilter

CONFIDENT = np.ones(1)


def smoothed(places, fps=25.0, scores=None, **settings):
    run = OneEuroFilter(**settings)
    scores = [CONFIDENT] * len(places) if scores is None else scores
    return np.array(
        [
            run(n / fps, np.array([place]), score, 100.0)[0]
            for n, (place, score) in enumerate(zip(places, scores, strict=True))
        ]
    )


def test_at_rest_it_is_a_low_pass_of_the_first_order():
    """A step of 1 pixel with beta 0: what is left after n frames is (1 - share)^n."""
    places = [(0.0, 5.0)] + [(1.0, 5.0)] * 10
    share = 2 * math.pi * 1.5 / 25 / (2 * math.pi * 1.5 / 25 + 1)
    result = smoothed(places, min_cutoff=1.5, beta=0.0)
    assert result[:, 0] == pytest.approx([0] + [1 - (1 - share) ** n for n in range(1, 11)])
    assert result[:, 1] == pytest.approx(5.0)


def test_a_steady_walk_lags_by_one_over_the_cut_off_and_less_with_beta():
    """A ramp through a low-pass of time constant tau lags by speed x tau in the end."""
    speed = 50.0  # pixels a second: half a body length
    places = [(speed * n / 25, 0.0) for n in range(400)]
    for beta in (0.0, 4.0):
        lag = places[-1][0] - smoothed(places, min_cutoff=1.0, beta=beta)[-1, 0]
        assert lag == pytest.approx(speed / (2 * math.pi * (1.0 + beta * 0.5)), rel=0.01)


def test_the_frame_rate_does_not_change_the_smoothing():
    ends = [
        smoothed([(0.0, 0.0)] + [(1.0, 0.0)] * frames, frames / 0.5, beta=0.0, min_cutoff=1.0)[-1, 0]
        for frames in (25, 50, 400)
    ]
    assert ends[2] == pytest.approx(1 - math.exp(-2 * math.pi * 1.0 * 0.5), abs=0.01)
    assert abs(ends[0] - ends[1]) < 0.02


def test_noise_is_reduced_and_the_mean_kept():
    noise = np.random.default_rng(0).normal(0, 2, (500, 2)) + 40
    result = smoothed(noise, beta=0.0, min_cutoff=1.0)
    assert result[50:].std() < 0.5 * noise[50:].std()
    assert result[50:].mean() == pytest.approx(40, abs=0.3)


def test_an_unconfident_joint_is_unchanged_and_does_not_update_the_filter():
    places = [(10.0, 10.0)] * 5 + [(500.0, 500.0)] * 3 + [(10.0, 10.0)] * 3
    scores = [CONFIDENT] * 5 + [0.1 * CONFIDENT] * 3 + [CONFIDENT] * 3
    assert smoothed(places, scores=scores) == pytest.approx(np.array(places))
    lost = [(np.nan, np.nan) if n == 5 else place for n, place in enumerate(places)]
    result = smoothed(lost, scores=[*scores[:5], CONFIDENT, *scores[6:]])
    assert np.isnan(result[5]).all()
    assert result[8:] == pytest.approx(np.array(places[8:]))


def test_after_a_long_gap_the_old_position_hardly_counts():
    run = OneEuroFilter(beta=0.0)
    run(0.0, np.zeros((1, 2)), CONFIDENT, 100.0)
    run(0.04, np.zeros((1, 2)), 0 * CONFIDENT, 100.0)
    assert run(5.0, np.full((1, 2), 100.0), CONFIDENT, 100.0).min() > 98
