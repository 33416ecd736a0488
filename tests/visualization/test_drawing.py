from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from distilpose.skeleton import Skeleton
from distilpose.visualization.drawing import (
    COLOURS,
    contact_sheet,
    crop_image,
    difference_image,
    draw_numbers,
    draw_skeleton,
    heatmap_image,
    write_picture,
)

ARMS = Skeleton.from_names(["neck", "left_hand", "right_hand", "left_elbow"], limbs=[(1, 3), (0, 2)])
POINTS = np.array([[[50.0, 20.0], [80.0, 60.0], [20.0, 60.0], [80.0, 20.0]]])


def black() -> np.ndarray:
    return np.zeros((100, 100, 3), np.uint8)


def test_limbs_have_the_colour_of_their_side():
    image = np.zeros((500, 500, 3), np.uint8)
    drawn = draw_skeleton(image, 5 * POINTS, np.ones((1, 4)), ARMS)
    assert not image.any()
    assert tuple(drawn[200, 400]) == COLOURS["left"]
    assert tuple(drawn[200, 175]) == COLOURS["centre"]


def test_joints_below_the_threshold_and_their_limbs_are_left_out():
    scores = torch.tensor([[1.0, 0.1, 1.0, 1.0]])
    drawn = draw_skeleton(black(), torch.tensor(POINTS), scores, ARMS, threshold=0.2)
    assert not drawn[40, 80].any()
    assert not drawn[60, 80].any()
    assert drawn[20, 80].any()


def test_lines_grow_with_the_image():
    blank = (np.zeros((side, side, 3), np.uint8) for side in (500, 2000))
    small, large = (draw_skeleton(image, image.shape[0] / 100 * POINTS, None, ARMS) for image in blank)
    # with a constant line width the share would fall to a quarter; smooth edges add a pixel or two to each line
    assert 0.5 < large.any(-1).mean() / small.any(-1).mean() < 1.1


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e12, -1e12])
def test_joints_far_outside_the_image_are_ignored(value):
    points = POINTS.copy()
    points[0, 1] = value
    drawn = draw_skeleton(black(), points, np.ones((1, 4)), ARMS)
    assert drawn[60, 20].any()


def test_without_persons_the_image_is_unchanged():
    assert not draw_skeleton(black(), np.zeros((0, 4, 2)), np.zeros((0, 4)), ARMS).any()


def test_numbers_stand_at_their_boxes_even_beyond_the_border():
    blank = np.zeros((200, 200, 3), np.uint8)
    drawn = draw_numbers(blank, [[100, 100, 20, 20]], [7])
    assert drawn[80:100, 95:130].any()
    assert not drawn[:70].any()
    assert not blank.any()
    assert draw_numbers(blank, [[-50, -50, 20, 20]], [7]).any()
    assert not draw_numbers(blank, [], []).any()


def test_a_crop_comes_back_from_its_normalised_form():
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    picture = np.random.default_rng(0).integers(0, 256, (8, 6, 3), dtype=np.uint8)
    planes = torch.from_numpy(picture).permute(2, 0, 1).float() / 255
    crop = (planes - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
    assert (crop_image(crop, mean, std) == picture).all()


def test_heatmaps_are_brightest_at_the_peak_of_any_joint():
    maps = torch.zeros(2, 4, 3)
    maps[0, 1, 2], maps[1, 3, 0] = 1.0, 0.5
    picture = heatmap_image(maps, size=(8, 6)).astype(int).sum(-1)
    assert picture.shape == (8, 6)
    assert picture[2, 4] == picture[3, 5] == picture.max()
    assert picture.max() > picture[6, 0] > picture[0, 0]


def test_differences_are_white_at_zero_red_above_blue_below():
    red, green, blue = np.moveaxis(difference_image([[0.0, 1.0, -1.0]])[0].astype(int), -1, 0)
    assert min(red[0], green[0], blue[0]) > 240
    assert red[1] > blue[1] + 50
    assert blue[2] > red[2] + 50


def test_a_sheet_shows_every_picture_completely():
    red = np.full((10, 20, 3), (255, 0, 0), np.uint8)
    blue = np.full((30, 8, 3), (0, 0, 255), np.uint8)
    sheet = contact_sheet([[red, blue], [blue]], titles=["a", "b"])
    assert (sheet == (255, 0, 0)).all(-1).sum() == 200
    assert (sheet == (0, 0, 255)).all(-1).sum() == 2 * 240
    assert (sheet[:, -4:] == 255).all()


@pytest.mark.parametrize("name", ["sheet.png", "sheet.JPG", "sheet.webp"])
def test_a_written_picture_is_read_back_without_a_warning(tmp_path, capfd, name):
    picture = np.full((16, 24, 3), (200, 100, 50), dtype=np.uint8)
    write_picture(tmp_path / name, picture)
    with Image.open(tmp_path / name) as read:
        assert np.abs(np.asarray(read.convert("RGB")).astype(int) - picture).max() < 8
    assert "WARN" not in capfd.readouterr().err
