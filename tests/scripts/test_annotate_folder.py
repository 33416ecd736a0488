"""Images without labels become a data set for a teacher."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest

from distilpose.data import CocoKeypoints
from distilpose.skeleton import COCO


@pytest.fixture(scope="module")
def script(load_script):
    return load_script("annotate_folder")


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for number, size in enumerate([(40, 30), (20, 50), (30, 30)]):
        cv2.imwrite(str(folder / f"photo {number}.png"), np.full((*size, 3), 90, np.uint8))
    return folder


def test_each_photograph_is_one_person(script, photos, tmp_path):
    output = tmp_path / "train.json"
    script.main([str(photos), str(output)])
    data = CocoKeypoints(output, photos, input_size=(32, 24), unlabelled=True)
    assert len(data) == 3
    assert data.skeleton == COCO
    assert data.instances.boxes[:, 2:].tolist() == [[29, 39], [49, 19], [29, 29]]  # COCO's last pixel is not in a box
    assert data[0].weights.sum() == 0
    before = output.read_text()
    with pytest.raises(SystemExit, match=r"train\.json"):
        script.main([str(photos), str(output)])
    assert output.read_text() == before


def test_own_boxes_and_joints(script, photos, tmp_path, tiny_coco):
    boxes = [{"file_name": "photo 1.png", "bbox": [1, 2, 10, 11], "score": 0.5}]
    boxes += [{"file_name": "photo 1.png", "bbox": [20, 3, 10, 12], "score": 0.6}]
    boxes += [
        {"file_name": "photo 1.png", "bbox": [999, 3, 10, 12]},
        {"file_name": "photo 1.png", "bbox": [1, 2, -3, 4]},
    ]
    (tmp_path / "boxes.json").write_text(json.dumps(boxes))
    like = tiny_coco() / "annotations" / "train.json"
    content = script.annotate(photos, tmp_path / "boxes.json", like)
    assert [image["file_name"] for image in content["images"]] == ["photo 1.png"]
    assert [person["bbox"] for person in content["annotations"]] == [[1, 2, 10, 11], [20, 3, 10, 12]]
    assert content["categories"][0]["keypoints"] == json.loads(like.read_text())["categories"][0]["keypoints"]


def test_a_folder_without_images(script, tmp_path):
    with pytest.raises(SystemExit, match="images"):
        script.main([str(tmp_path), str(tmp_path / "out.json")])
