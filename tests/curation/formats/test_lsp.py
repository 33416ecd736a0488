"""Leeds Sports Poses, plain and extended."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from annotated import rows
from scipy.io import savemat

from distilpose.curation.formats import convert_set
from distilpose.curation.formats.lsp import NAMES
from distilpose.errors import DistilPoseError


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
    content, told = convert("lsp", tmp_path / "joints.mat", data.folder)
    assert "left out: 1 persons of images that are missing" in told
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


def test_a_mat_of_another_shape(tmp_path, sound):
    savemat(tmp_path / "joints.mat", {"joints": np.zeros((4, 14, 3))})
    with pytest.raises(DistilPoseError, match="4 x 14 x 3: expected 3 x 14 x N"):
        convert_set("lsp", tmp_path / "joints.mat", sound().folder, tmp_path / "out.json")


def test_two_photographs_of_one_number_are_refused(converted, sound, tmp_path):
    data = sound(images=1)
    for folder in ("images", "visualized"):
        (tmp_path / "set" / folder).mkdir(parents=True)
        shutil.copy(data.folder / "1.png", tmp_path / "set" / folder / "im0001.png")
    savemat(tmp_path / "joints.mat", {"joints": np.ones((3, 14, 1))})
    with pytest.raises(DistilPoseError, match="im0001"):
        converted("lsp", tmp_path / "joints.mat", tmp_path / "set")


def test_four_and_five_digits_of_one_number(converted, sound, tmp_path):
    data = sound(images=2)
    (data.folder / "1.png").rename(data.folder / "im0001.png")
    (data.folder / "2.png").rename(data.folder / "im00001.png")
    savemat(tmp_path / "joints.mat", {"joints": np.ones((3, 14, 1))})
    with pytest.raises(DistilPoseError, match="both number 1"):
        converted("lsp", tmp_path / "joints.mat", data.folder)
