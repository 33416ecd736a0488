from __future__ import annotations

import numpy as np
import pytest

from distilpose.evaluation.jitter import steadiness


def test_a_walk_of_even_speed_that_is_off_by_three_pixels_does_not_tremble():
    walk = np.stack([np.arange(20.0), np.zeros(20)], axis=-1)[:, None]
    found = steadiness(walk + np.array([3, 0]), walk, torso=10)
    assert found == pytest.approx((0, 0, 3, 0))
    assert steadiness(walk + np.array([2, 0]), walk, torso=10).pck == 1


def test_trembling_by_a_pixel_to_and_fro_is_an_acceleration_of_four():
    rest = np.zeros((20, 1, 2))
    shaken = rest + (-1.0) ** np.arange(20)[:, None, None] * np.array([1, 0])
    assert steadiness(shaken, rest, torso=10)[:3] == pytest.approx((4, 4, 1))
    assert steadiness(rest, shaken, torso=10)[:2] == pytest.approx((-4, 4))
