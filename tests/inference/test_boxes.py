from __future__ import annotations

import json

import numpy as np
import pytest

from distilpose.data.geometry import on_image
from distilpose.errors import DistilPoseError
from distilpose.inference.boxes import read_boxes, read_frame_boxes
from distilpose.inference.images import find_images, image_ids


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


def test_a_list_of_detections(folder, tmp_path):
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
    assert {path.name: image_boxes.boxes.tolist() for path, image_boxes in boxes.items()} == {
        "000000000785.jpg": [[1, 2, 3, 4], [1, 2, 0, 4]],
        "000000000007.PNG": [[5, 6, 7, 8]],
    }
    assert np.concatenate([image_boxes.scores for image_boxes in boxes.values()]).tolist() == [0.9, 0.9, 1.0]
    assert numbers == ids


def test_images_have_the_numbers_of_the_annotation_file(folder, tmp_path):
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
    assert {path.name: image_boxes.boxes.tolist() for path, image_boxes in boxes.items()} == {
        "000000000785.jpg": [[1, 2, 3, 4]]
    }
    assert numbers[folder / "000000000785.jpg"] == 3


@pytest.mark.parametrize(
    ("content", "facts"),
    [
        ({"images": []}, ["'annotations'", "list"]),
        ([{"image_id": 785}], ["Row 0", "'bbox'"]),
        ([{"bbox": [1, 2, 3, 4]}], ["Row 0", "'image_id'", "'file_name'"]),
        ([{"image_id": 785, "bbox": [1, 2, 3]}], ["row 0", "3 numbers", "4"]),
        ([{"image_id": 1, "bbox": [1, 2, 3, 4]}], ["category 1", "2 image"]),
        *(
            (
                {"images": [{"id": number, "file_name": "000000000785.jpg"}], "annotations": []},
                ["785.jpg", repr(number)],
            )
            for number in ("x", ["x"], 2**70, 1.5)
        ),
    ],
)
def test_malformed_box_files(folder, tmp_path, content, facts):
    with pytest.raises(DistilPoseError) as error:
        read_boxes(write(tmp_path, content), image_ids(find_images(folder)), category_id=1)
    assert all(fact in str(error.value) for fact in ["boxes.json", *facts])


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
    frames = read_frame_boxes(write(tmp_path, rows), category_id=1)
    assert {number: boxes.scores.tolist() for number, boxes in frames.items()} == {0: [1.0], 4: [0.1]}
    assert list(read_frame_boxes(write(tmp_path, {"annotations": rows}), 1, threshold=0.5)) == [0]
    with pytest.raises(DistilPoseError, match=r"boxes\.json.*category 2"):
        read_frame_boxes(write(tmp_path, [{**rows[0], "category_id": 1}]), category_id=2)
    with pytest.raises(DistilPoseError, match=r"boxes\.json.*list"):
        read_frame_boxes(write(tmp_path, {}), category_id=1)
