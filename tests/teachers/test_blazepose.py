from __future__ import annotations

import numpy as np
import pytest

from distilpose.teachers.blazepose import BlazePoseSource
from distilpose.teachers.blazepose_network import BLAZEPOSE, LIMBS, BlazePoseOutput

BOX = np.array([[100.0, 60, 100, 160]])
HIPS, JOINT = (160, 150), (140, 165)
RIM = (190, 100)  # the point on the body's circle
SIDE = 240  # side of the box's view in image pixels: the longer side of the box times 1.5


def photograph(rim=RIM):
    """A black BGR image with a red dot at the hips, a green one at the rim and a blue one at the joint."""
    y, x = np.mgrid[:300, :400]
    dots = [np.exp(-((x - u) ** 2 + (y - v) ** 2) / (2 * 3**2)) for u, v in (JOINT, rim, HIPS)]
    return (255 * np.stack(dots, -1)).round().astype(np.uint8)


class Reader:
    """A network that reads the positions of the dots from a crop.

    Args:
        heights: height of the limb joints' peaks in each view; the other joints' peaks are 1 - height.
        reach: places the rim straight above the hips, at this multiple of the distance that MediaPipe's rule leads to; None
            reads the rim from the crop.

    Attributes:
        views: (3, 2) crop pixels of hips, rim and joint in each view so far.
    """

    skeleton, digest = BLAZEPOSE, "none"

    def __init__(self, heights=(0.9,) * 9, reach=None):
        self.heights, self.reach, self.views = iter(heights), reach, []

    def __call__(self, crop):
        places = np.arange(256.0)
        light = crop / crop.sum((0, 1)).clip(1)
        dots = np.stack([np.einsum("yxc,x->c", light, places), np.einsum("yxc,y->c", light, places)], -1)
        self.views.append(dots)
        body = dots[:2].copy()
        if self.reach is not None:
            body[1] = body[0] - [0, self.reach * 256 / 2.5]
        height = next(self.heights)
        # cell i of a map lies at crop pixel 4 i - 0.5
        y, x = np.mgrid[:64, :64] - (dots[2, ::-1].reshape(2, 1, 1) + 0.5) / 4
        peaks = np.where(np.isin(np.arange(33), LIMBS), height, 1 - height)
        chance = peaks * np.exp(-(x**2 + y**2) / (2 * 3**2))[..., None]
        return BlazePoseOutput(np.log(chance / (1 - chance)).astype(np.float32), body.astype(np.float32))


@pytest.mark.parametrize("rim", [(160, 90), (200, 105), (195, 200), (160, 205), (105, 150)])
def test_the_second_view_is_upright_about_the_hips(rim):
    """For any orientation of the body: the hips in the crop's centre, the rim straight above them, 1 / 2.5 of the side away."""
    model = Reader()
    BlazePoseSource(model, turns=1, passes=1)([photograph(rim)], BOX)
    first, second = model.views
    assert np.abs(first[0] - 128).max() > 5
    np.testing.assert_allclose(second[:2], [[128, 128], [128, 128 - 256 / 2.5]], atol=0.2)


@pytest.mark.parametrize("turns", [1, 3, 8])
def test_turns_are_spread_evenly_over_the_circle(turns):
    model = Reader()
    BlazePoseSource(model, turns=turns, passes=0)([photograph()], BOX)
    arms = np.array([np.subtract(rim, hips) @ [1, 1j] for hips, rim, _ in model.views])
    turned = np.sort(np.degrees(np.angle(arms / arms[0])).round(1) % 360)
    np.testing.assert_allclose(turned, 360 * np.arange(turns) / turns, atol=0.3)
    # all views have the centre and the size of the padded box
    np.testing.assert_allclose(np.abs(arms), np.hypot(30, 50) * 256 / SIDE, rtol=0.01)
    distances = np.linalg.norm(np.array([hips for hips, _, _ in model.views]) - 128, axis=-1)
    np.testing.assert_allclose(distances, np.hypot(10, 10) * 256 / SIDE, atol=0.2)


@pytest.mark.parametrize(
    ("turns", "passes", "heights", "best"),
    [
        (4, 0, (0.6, 0.7, 0.9, 0.8), 0.9),
        (2, 2, (0.9, 0.8, 0.7, 0.6), 0.7),  # a view of the body is used, even if its peaks are lower than the box's
        (2, 2, (0.6, 0.8, 0.7, 0.9), 0.9),
    ],
)
def test_the_view_with_the_limbs_highest_peaks_is_used(turns, passes, heights, best):
    result = BlazePoseSource(Reader(heights), turns, passes)([photograph()], BOX)
    np.testing.assert_allclose(result.trust[0, list(LIMBS)], best, atol=0.03)


@pytest.mark.parametrize(("reach", "views"), [(0.24, 1), (0.26, 2), (1, 3), (3.9, 2), (4.1, 1)])
def test_a_body_point_that_is_far_off_stops_the_passes(reach, views):
    """A `reach` outside 0.25 to 4 stops in the first pass; 0.26 and 3.9 stop in the second, where the factor is squared."""
    model = Reader((0.9, 0.6, 0.3), reach)
    result = BlazePoseSource(model, turns=1)([photograph()], BOX)
    assert len(model.views) == views
    np.testing.assert_allclose(result.trust[0, list(LIMBS)], 0.9 if views == 1 else 0.6, atol=0.03)


@pytest.mark.parametrize("pool", [1, 2])
@pytest.mark.parametrize("passes", [0, 2])
def test_warps_map_the_image_to_cells(pool, passes):
    """The joint's position in the photograph maps to the map's centre of mass, within 0.01 cells."""
    result = BlazePoseSource(Reader(), turns=1, passes=passes, pool=pool)([photograph()], BOX)
    side = 64 // pool
    assert result.heatmaps.shape == (1, 33, side, side)
    assert result.heatmaps.max() == 1
    share = result.heatmaps[0, LIMBS[0]] / result.heatmaps[0, LIMBS[0]].sum()
    cell = [share.sum(0) @ np.arange(side), share.sum(1) @ np.arange(side)]
    np.testing.assert_allclose(result.warps[0] @ [*JOINT, 1], cell, atol=0.01)
