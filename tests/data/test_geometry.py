"""The crop's affine map against the release's matrices and against plain geometry."""

from __future__ import annotations

import hashlib
import json
import math

import cv2
import numpy as np
import pytest

from distilpose.data.geometry import Region, given_boxes, region_of_box, warp_image, warp_of_region, warp_points
from distilpose.errors import DistilPoseError

SIZE = (256, 192)


def test_equals_the_release(shared_data, release_fixtures):
    sample = json.loads((release_fixtures / "pipeline_sample.json").read_text())
    for person in sample["instances"]:
        region = region_of_box(person["bbox"], SIZE)
        warp = warp_of_region(region, SIZE)
        assert region.centre.tolist() == person["center"]
        np.testing.assert_allclose(warp, person["warp"], rtol=1e-9, atol=1e-9)
        seen = np.array(person["joints_visible"])[:, 0] > 0
        joints = warp_points(np.array(person["joints"])[:, :2], warp)
        np.testing.assert_allclose(joints[seen], np.array(person["joints_in_crop"])[seen, :2], atol=1e-5)
        image = cv2.imread(str(shared_data / "coco-mini" / "val2017" / person["image"]))
        crop = cv2.cvtColor(warp_image(image, warp, SIZE), cv2.COLOR_BGR2RGB)
        np.testing.assert_allclose(crop.mean((0, 1)), person["crop_mean_rgb"], atol=0.05)
        if cv2.__version__ == sample["opencv"]:
            assert hashlib.sha256(np.ascontiguousarray(crop).tobytes()).hexdigest() == person["crop_sha256"]


@pytest.mark.parametrize("box", [(10, 20, 30, 100), (10, 20, 100, 30), (-5, -8, 60, 80)])
def test_region_holds_the_box_in_the_crops_proportions(box):
    centre, size = region_of_box(box, SIZE, padding=1.25)
    assert centre == pytest.approx((box[0] + box[2] / 2, box[1] + box[3] / 2))
    assert size[0] / size[1] == pytest.approx(192 / 256)
    assert size.min() > 0
    assert (size >= 1.25 * np.array(box[2:]) - 1e-3).all()
    assert np.isclose(size, 1.25 * np.array(box[2:])).any(), "one side is the box's own"


def test_upright_map_takes_the_region_to_the_crop():
    region = region_of_box((40, 30, 60, 110), SIZE)
    warp = warp_of_region(region, SIZE)
    corners = np.array([region.centre, region.centre - region.size / 2, region.centre + region.size / 2])
    np.testing.assert_allclose(warp_points(corners, warp), [[96, 128], [0, 0], [192, 256]], atol=1e-3)


def test_rotation_turns_about_the_centre_and_keeps_scale():
    region = Region(np.float32([80, 70]), np.float32([75, 100]))
    upright, turned = warp_of_region(region, SIZE), warp_of_region(region, SIZE, rotation=30)
    np.testing.assert_allclose(warp_points(region.centre[None], turned), [[96, 128]], atol=1e-3)
    turn = turned[:, :2] @ np.linalg.inv(upright[:, :2])
    cosine, sine = np.cos(np.pi / 6), np.sin(np.pi / 6)
    np.testing.assert_allclose(np.abs(turn), [[cosine, sine], [sine, cosine]], atol=1e-5)
    assert np.linalg.det(turn) == pytest.approx(1, abs=1e-5)


def test_mirror_in_the_matrix_is_mirroring_the_image_first():
    image = np.random.default_rng(0).integers(0, 255, (90, 121, 3), dtype=np.uint8)
    image = cv2.GaussianBlur(image, (9, 9), 0)
    region = Region(np.float32([50, 40]), np.float32([60, 80]))
    folded = warp_image(image, warp_of_region(region, SIZE, 20, mirror_width=121), SIZE)
    in_two_steps = warp_image(np.ascontiguousarray(image[:, ::-1]), warp_of_region(region, SIZE, 20), SIZE)
    assert np.abs(folded.astype(int) - in_two_steps).mean() < 0.3


def test_points_land_where_the_pixels_do():
    image = np.zeros((100, 140), np.uint8)
    image[60, 33] = 255
    region = region_of_box((80, 30, 40, 50), SIZE)  # of the mirrored image, where the pixel is at x = 106
    warp = warp_of_region(region, SIZE, rotation=25, mirror_width=140)
    crop = warp_image(image, warp, SIZE).astype(float)
    rows, columns = np.indices(crop.shape)
    blob = [(columns * crop).sum() / crop.sum(), (rows * crop).sum() / crop.sum()]
    np.testing.assert_allclose(warp_points(np.array([[33, 60]]), warp)[0], blob, atol=0.05)


@pytest.mark.parametrize("boxes", [[1, 2, 3, 4], [[1, 2, 3, 4]], ((1.0, 2, 3, 4),), np.array([1, 2, 3, 4], np.float32)])
def test_valid_boxes(boxes):
    assert given_boxes(boxes, (9, 9)).tolist() == [[1, 2, 3, 4]]
    assert given_boxes([], (9, 9)).shape == (0, 4)


@pytest.mark.parametrize(
    ("boxes", "facts"),
    [
        ([[1, 2, 3, 4, 0.9]], "are 1 x 5: expected x, y, width, height in pixels for each person, without a score"),
        ([1, 2, 3, 4, 5, 6, 7, 8], "are 8: expected"), (7, "are one number: expected"), ([[[1, 2, 3, 4]]], "are 1 x 1 x 4"),
        ("1 2 3 4", "no table of numbers"), ([[1, 2, 3, 4], [5]], "no table of numbers"), ([[1, None, {}, 4]], "no table"),
        ([[0, 0, 4, 4], [0, 0, 0, 5]], r"Box \[0.0, 0.0, 0.0, 5.0\] is empty"), ([[1, 2, -3, 4]], "is empty"),
        ([[0, 0, 5, math.nan]], "not finite"), ([[math.inf, 0, 5, 5]], "not finite"),
        ([[20, 0, 5, 5]], "outside the image of 20 x 10"), ([[-5, 0, 5, 5]], "outside"),
        ([[0, 10, 5, 5]], "outside"), ([[5, 5, 1e-9, 1e-9]], "is empty"), ([[5, 5, 1e30, 9]], "huge"),
    ],
)  # fmt: skip
def test_invalid_boxes(boxes, facts):
    with pytest.raises(DistilPoseError, match=facts):
        given_boxes(boxes, (10, 20))
