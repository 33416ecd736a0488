"""The gallery of a set: its files, its text, images that it does not open."""

from __future__ import annotations

import re

import cv2
import numpy as np
import pytest

from distilpose.curation.gallery import write_gallery


def test_a_gallery_is_complete_and_self_contained(sound, tmp_path):
    data = sound(persons=8)
    assert write_gallery(data.write(), data.folder, tmp_path / "gallery", persons=5, input_size=(64, 48)) == 5
    page = (tmp_path / "gallery/index.html").read_text()
    places = re.findall(r'src="([^"]+)"', page)
    assert len(places) == 5 + 5 * 4  # figures; a photograph, a plain crop and two augmented ones of each person
    assert {
        path.relative_to(tmp_path / "gallery").as_posix() for path in (tmp_path / "gallery/pictures").iterdir()
    } == set(places)
    for place in places:
        assert cv2.imread(str(tmp_path / "gallery" / place)) is not None
    assert "http:" not in page
    assert "https:" not in page
    assert "<script" not in page
    assert 'name="viewport"' in page
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_the_plain_crop_is_what_the_network_sees(sound, tmp_path):
    from distilpose.data import CocoKeypoints
    from distilpose.data.coco import MEAN, STD
    from distilpose.visualization.drawing import crop_image

    data = sound(persons=1)
    write_gallery(data.write(), data.folder, tmp_path / "gallery", input_size=(128, 96))
    item = CocoKeypoints(data.file, data.folder, input_size=(128, 96))[0]
    shown = cv2.imread(str(tmp_path / "gallery/pictures/0_0.jpg"))[..., ::-1].astype(int)
    difference = np.abs(shown - crop_image(item.image, MEAN, STD)).max(2)
    assert shown.shape == (128, 96, 3)
    assert np.median(difference) < 12  # JPEG; the skeleton covers less than half
    x, y = (item.keypoints[0].numpy() * [96, 128]).round().astype(int)
    assert difference[y - 3 : y + 4, x - 3 : x + 4].max() > 60  # the nose is drawn at its target


def test_names_are_escaped(sound, tmp_path):
    data = sound(images=1, persons=2)
    name = '"><script>alert(1)</script>&.png'.replace("/", "⁄")
    (data.folder / "1.png").rename(data.folder / name)
    data.images[0]["file_name"] = name
    data.category["keypoints"][0] = "<b>$nose$</b>"
    file = data.write().rename(data.root / "<img src=x onerror=alert(1)>.json")
    write_gallery(file, data.folder, tmp_path / "gallery", input_size=(64, 48))
    page = (tmp_path / "gallery/index.html").read_text()
    assert "<script" not in page
    assert "<img src=x" not in page
    assert "&lt;script&gt;" in page


def test_images_outside_the_folder_are_not_shown(sound, tmp_path):
    data = sound(images=1, persons=2)
    (tmp_path / "secret.png").write_bytes((data.folder / "1.png").read_bytes())
    data.images[0]["file_name"] = "../../secret.png"
    with pytest.raises(PermissionError, match="leads out"):
        write_gallery(data.write(), data.folder, tmp_path / "gallery")
    assert not (tmp_path / "gallery").exists()
