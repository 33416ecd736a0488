"""Leeds Sports Poses, plain and extended."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from annotated import rows
from scipy.io import savemat

from distilpose.curation.formats.lsp import NAMES


def lsp_images(data, count):
    for number in range(1, count + 1):
        (data.folder / f"{number}.png").rename(data.folder / f"im{number:04d}.png")


@pytest.mark.parametrize("extended", [False, True])
def test_leeds_sports(convert, sound, tmp_path, extended):
    data = sound(images=5)
    lsp_images(data, 5)
    draw = np.random.default_rng(0)
    points = draw.uniform(20, 140, (6, 14, 2)).round(2)  # a sixth person without an image
    flags = draw.random((6, 14)) < 0.3
    table = np.concatenate([points, flags[..., None]], axis=2)
    savemat(tmp_path / "joints.mat", {"joints": table.transpose(1, 2, 0) if extended else table.transpose(2, 1, 0)})
    content, report = convert("lsp", tmp_path / "joints.mat", data.folder)
    assert "skipped: 1 persons of images that are missing" in report
    for number, (name, joints) in enumerate(rows(content, 14)):
        assert name == f"im{number + 1:04d}.png"
        if extended:  # the flag says visible
            np.testing.assert_array_equal(joints[:, 2], np.where(flags[number], 2, 0))
            np.testing.assert_array_equal(joints[flags[number], :2], points[number][flags[number]])
        else:  # the flag says hidden
            np.testing.assert_array_equal(joints[:, 2], np.where(flags[number], 1, 2))
            np.testing.assert_array_equal(joints[:, :2], points[number])
    category = content["categories"][0]
    assert category["keypoints"] == list(NAMES)
    assert [0, 5] in category["flip_pairs"]  # ankles


def test_a_mat_of_another_shape(rejected, tmp_path, sound):
    savemat(tmp_path / "joints.mat", {"joints": np.zeros((4, 14, 3))})
    rejected("lsp", tmp_path / "joints.mat", sound(images=1).folder, "4 x 14 x 3", "3 x 14 x N")


@pytest.mark.parametrize("names", [("images/im0001.png", "visualized/im0001.png"), ("im0001.png", "im00001.png")])
def test_two_images_of_one_number_are_rejected(rejected, sound, tmp_path, names):
    data = sound(images=1)
    for name in names:
        (tmp_path / "set" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(data.folder / "1.png", tmp_path / "set" / name)
    savemat(tmp_path / "joints.mat", {"joints": np.ones((3, 14, 1))})
    rejected("lsp", tmp_path / "joints.mat", tmp_path / "set", *names, "number 1", "--images")
