from __future__ import annotations

import json

import numpy as np
import pytest

from distilpose.data.geometry import on_image
from distilpose.errors import DistilPoseError
from distilpose.inference.sources import find_images, image_ids, read_boxes, read_frame_boxes


@pytest.fixture
def folder(tmp_path):
    place = tmp_path / "photos"
    place.mkdir()
    for name in ("000000000785.jpg", "000000000007.PNG", "notes.txt", ".hidden.jpg"):
        (place / name).write_bytes(b"")
    return place


def write(tmp_path, content):
    path = tmp_path / "boxes.json"
    path.write_text(json.dumps(content))
    return path


def test_images_of_a_folder_by_name(folder):
    assert [path.name for path in find_images(folder)] == ["000000000007.PNG", "000000000785.jpg"]
    assert find_images(folder / "notes.txt") == [folder / "notes.txt"]


def test_sources_without_images(tmp_path):
    with pytest.raises(DistilPoseError, match="holds no image"):
        find_images(tmp_path)
    with pytest.raises(DistilPoseError, match="neither an image nor a folder"):
        find_images(tmp_path / "absent")


def test_numbers_are_cocos_where_all_names_are(folder):
    images = find_images(folder)
    assert list(image_ids(images).values()) == [7, 785]
    assert list(image_ids([*images, folder / "me.jpg"]).values()) == [1, 2, 3]
    assert list(image_ids([folder / "7.jpg", folder / "007.jpg"]).values()) == [1, 2]


def test_a_detectors_list(folder, tmp_path):
    ids = image_ids(find_images(folder))
    rows = [
        {"image_id": 785, "category_id": 1, "bbox": [1, 2, 3, 4], "score": 0.9},
        {"image_id": 785, "category_id": 18, "bbox": [1, 2, 3, 4], "score": 0.9},
        {"image_id": 785, "category_id": 1, "bbox": [1, 2, 3, 4], "score": 0.1},
        {"image_id": 785, "category_id": 1, "bbox": [1, 2, 0, 4], "score": 0.9},
        {"image_id": 4, "category_id": 1, "bbox": [1, 2, 3, 4], "score": 0.9},
        {"file_name": "sub/000000000007.PNG", "bbox": [5, 6, 7, 8]},
    ]
    boxes, numbers = read_boxes(write(tmp_path, rows), ids, category_id=1, threshold=0.5)
    assert {path.name: found.boxes.tolist() for path, found in boxes.items()} == {
        "000000000785.jpg": [[1, 2, 3, 4], [1, 2, 0, 4]],
        "000000000007.PNG": [[5, 6, 7, 8]],
    }
    assert np.concatenate([found.scores for found in boxes.values()]).tolist() == [0.9, 0.9, 1.0]
    assert numbers == ids


def test_an_annotation_file_brings_its_own_numbers(folder, tmp_path):
    ids = image_ids(find_images(folder))
    content = {
        "images": [{"id": 3, "file_name": "000000000785.jpg"}, {"id": 785, "file_name": "another.jpg"}],
        "annotations": [
            {"id": 1, "image_id": 3, "category_id": 1, "bbox": [1, 2, 3, 4], "iscrowd": 0},
            {"id": 2, "image_id": 3, "category_id": 1, "bbox": [9, 9, 9, 9], "iscrowd": 1},
            {"id": 3, "image_id": 785, "category_id": 1, "bbox": [5, 6, 7, 8]},
        ],
    }
    boxes, numbers = read_boxes(write(tmp_path, content), ids, category_id=1)
    assert {path.name: found.boxes.tolist() for path, found in boxes.items()} == {"000000000785.jpg": [[1, 2, 3, 4]]}
    assert numbers[folder / "000000000785.jpg"] == 3


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"images": []}, "neither a COCO annotation file nor a list"),
        ([{"image_id": 785}], "Row 0 of box file .* lacks 'bbox'"),
        ([{"bbox": [1, 2, 3, 4]}], "Row 0 of box file"),
        ([{"image_id": 785, "bbox": [1, 2, 3]}], "has 3 numbers, expected 4"),
        ([{"image_id": 1, "bbox": [1, 2, 3, 4]}], "has no box of category 1 for any of the 2 image"),
    ],
)
def test_bad_box_files_are_one_sentence(folder, tmp_path, content, message):
    with pytest.raises(DistilPoseError, match=message):
        read_boxes(write(tmp_path, content), image_ids(find_images(folder)), category_id=1)


@pytest.mark.parametrize("number", ["x", ["x"], 2**70, 1.5])
def test_images_whose_id_is_no_number_are_refused(number, folder, tmp_path):
    content = {
        "images": [{"id": number, "file_name": "000000000785.jpg"}],
        "annotations": [{"image_id": 785, "category_id": 1, "bbox": [1, 2, 3, 4]}],
    }
    with pytest.raises(DistilPoseError, match=r"gives 000000000785\.jpg the id .*: expected a whole number"):
        read_boxes(write(tmp_path, content), image_ids(find_images(folder)), category_id=1)


@pytest.mark.parametrize(
    ("box", "good"),
    [
        ([1, 2, 3, 4], True), ([-5, -5, 6, 6], True), ([79, 39, 50, 50], True), ([-99, -99, 900, 900], True),
        ([80, 2, 3, 4], False), ([1, 40, 3, 4], False), ([-3, 2, 3, 4], False), ([1, -4, 3, 4], False),
        ([1, 2, 0, 4], False), ([60, 20, -9, 4], False), ([60, 20, 9, -4], False),
    ],
)  # fmt: skip
def test_boxes_on_an_image(box, good):
    assert on_image(np.array([box], dtype=float), (40, 80)).tolist() == [good]


def test_boxes_of_a_videos_frames(tmp_path):
    rows = [{"image_id": 0, "bbox": [1, 2, 3, 4]}, {"image_id": 4, "bbox": [1, 2, 3, 4], "score": 0.1}]
    found = read_frame_boxes(write(tmp_path, rows), category_id=1)
    assert {number: boxes.scores.tolist() for number, boxes in found.items()} == {0: [1.0], 4: [0.1]}
    assert list(read_frame_boxes(write(tmp_path, {"annotations": rows}), 1, threshold=0.5)) == [0]
    with pytest.raises(DistilPoseError, match="has no box of category 2"):
        read_frame_boxes(write(tmp_path, [{**rows[0], "category_id": 1}]), category_id=2)
    with pytest.raises(DistilPoseError, match="no list of"):
        read_frame_boxes(write(tmp_path, {}), category_id=1)
