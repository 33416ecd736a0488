"""Views of a teacher in quarter turns and mirrored, against numpy's turns and the truth in the image."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from dots import NETWORKS, make_network, write_persons
from hypothesis import given
from hypothesis import strategies as st

from distilpose.skeleton import Skeleton
from distilpose.teachers.base import Source, SourceOutput
from distilpose.teachers.network import NetworkSource
from distilpose.teachers.scoring import predict_source
from distilpose.teachers.several import SeveralSources
from distilpose.teachers.views import View, Views, in_views

MIDDLE = ("nose", "neck", "head_top")  # no sides, so that mirror images look alike
VIEWS = [View(*view) for view in product(range(4), (False, True))]
SIDES = Skeleton.from_names(["left_wrist", "right_wrist"])


@pytest.mark.parametrize("view", VIEWS)
@given(size=st.tuples(st.integers(1, 9), st.integers(1, 9)), place=st.tuples(st.integers(0, 8), st.integers(0, 8)))
def test_matrices_go_where_the_pixels_go(view, size, place):
    height, width = size
    x, y = place[0] % width, place[1] % height
    image = np.zeros((height, width, 3), np.uint8)
    image[y, x] = 255
    rows, columns = np.nonzero(view.of_image(image)[..., 0])
    assert view.matrix(size) @ [x, y, 1] == pytest.approx([columns[0], rows[0]])


@pytest.mark.parametrize("view", VIEWS)
def test_boxes_keep_their_pixels(view):
    """A box from the centre of its first pixel to that of its last one, as all coordinates here."""
    image = np.zeros((40, 30, 3), np.uint8)
    image[5:20, 7:16] = 255
    rows, columns = np.nonzero(view.of_image(image)[..., 0])
    shown = [columns.min(), rows.min(), np.ptp(columns), np.ptp(rows)]
    np.testing.assert_allclose(view.of_box(np.array([7.0, 5.0, 8.0, 14.0]), (40, 30)), shown)


@pytest.mark.parametrize("kind", NETWORKS)
def test_a_perfect_teacher_stays_perfect(kind, tmp_path):
    dataset, joints = write_persons(tmp_path, MIDDLE)
    source = NetworkSource(make_network(kind, MIDDLE))
    (predictions,) = predict_source(source, dataset, [True], "persons", quarter_turns=True)
    bins = 0.5 if kind.startswith("simcc") else 0  # its decoding is the best bin, half a pixel of the crop wide
    assert np.abs(predictions.keypoints.numpy() - joints).max() < 0.25 + bins
    assert predictions.scores.min() > 0.8


class Upright(Source):
    """A teacher of two wrists that is sure of people whose head, a white row, is at the top, and otherwise guesses.

    Args:
        sure: its trust for upright people.
        seen: the places of its peaks in cells for upright people, left and right wrist.
    """

    name, skeleton, map_size = "upright", SIDES, (16, 16)

    def __init__(self, sure: float = 0.9, seen=((4, 8), (12, 8))):
        self.sure, self.seen = sure, seen
        self.about = {"name": self.name}

    def __call__(self, images, boxes):
        maps, trust, warps = [], [], []
        for image, box in zip(images, boxes, strict=True):
            upright = image[0].mean() > 200
            peaks = self.seen if upright else ((2, 2), (2, 3))
            maps.append(np.zeros((2, 16, 16), np.float32))
            for joint, (x, y) in enumerate(peaks):
                maps[-1][joint, y, x] = self.sure
            trust.append([self.sure if upright else 0.3] * 2)
            scale = 16 / box[2]
            warps.append([[scale, 0, -scale * box[0]], [0, scale, -scale * box[1]]])
        return SourceOutput(np.stack(maps), np.array(warps, np.float64), np.array(trust, np.float32))


def hanging(quarters: int) -> tuple[list, np.ndarray]:
    """A photograph of 32 x 32 pixels of a person who was turned."""
    image = np.zeros((32, 32, 3), np.uint8)
    image[0] = 255
    return [np.ascontiguousarray(np.rot90(image, quarters))], np.array([[0.0, 0.0, 31.0, 31.0]])


@pytest.mark.parametrize("quarters", range(4))
def test_the_view_in_which_it_is_sure_decides(quarters):
    images, boxes = hanging(quarters)
    output = Views(Upright(), quarter_turns=True, mirrored=False)(images, boxes)
    left = np.unravel_index(output.heatmaps[0, 0].argmax(), (16, 16))
    place = np.linalg.solve(output.warps[0, :, :2], np.array([left[1], left[0]]) - output.warps[0, :, 2])
    true = View(quarters, False).matrix((32, 32)) @ [4 * 31 / 16, 8 * 31 / 16, 1]
    np.testing.assert_allclose(place, true, atol=1e-6)
    assert output.trust.min() == pytest.approx(0.9, abs=0.02)


def test_mirrored_views_exchange_the_sides():
    """Symmetric wrists: with the sides exchanged, both views agree, and without, they contradict each other."""
    images, boxes = hanging(0)
    seen = ((4, 8), (12, 8))  # cells 4 and 12 of 0 to 16: mirror images of each other
    agreed = Views(Upright(seen=seen), False, True)(images, boxes)
    contradicted = Views(Upright(seen=seen), False, True, flip_order=[0, 1])(images, boxes)
    assert agreed.trust.min() > 0.85
    assert contradicted.trust.max() < 0.6


def test_each_of_several_has_its_own_views():
    class Turning(Upright):
        turns = 8

    source = in_views(SeveralSources([Upright(), Turning()]), True, True, SIDES)
    assert isinstance(source, SeveralSources)
    assert [len(one.views) for one in source.sources] == [8, 2]
    assert in_views(Upright(), False, False, SIDES).about == Upright().about
    assert in_views(Upright(), True, False, SIDES).about != in_views(Upright(), True, True, SIDES).about
