from __future__ import annotations

import numpy as np
import pytest

from distilpose.evaluation.jitter import steadiness


def test_a_constant_offset_has_no_jitter():
    walk = np.stack([np.arange(20.0), np.zeros(20)], axis=-1)[:, None]
    metrics = steadiness(walk + np.array([3, 0]), walk, torso=10)
    assert metrics == pytest.approx((0, 0, 3, 0))
    assert steadiness(walk + np.array([2, 0]), walk, torso=10).pck == 1


def test_alternating_by_one_pixel_is_an_acceleration_of_four():
    rest = np.zeros((20, 1, 2))
    shaken = rest + (-1.0) ** np.arange(20)[:, None, None] * np.array([1, 0])
    assert steadiness(shaken, rest, torso=10)[:3] == pytest.approx((4, 4, 1))
    assert steadiness(rest, shaken, torso=10)[:2] == pytest.approx((-4, 4))
