"""CrowdPose: its joints, limbs, boxes and categories."""

from __future__ import annotations

import numpy as np
import pytest

from distilpose.errors import DistilPoseError

CROWDPOSE = [
    f"{side}_{part}" for part in ("shoulder", "elbow", "wrist", "hip", "knee", "ankle") for side in ("left", "right")
]


def test_crowdpose(convert, sound, tmp_path):
    data = sound()
    data.category.update(keypoints=[*CROWDPOSE, "head", "neck"], skeleton=[[1, 3], [13, 14]])
    order = [*range(5, 17), 0, 1]
    for person in data.people:
        person["keypoints"] = np.array(person["keypoints"]).reshape(17, 3)[order].ravel().tolist()
        person["num_keypoints"] = 14
        del person["area"]
    data.people[7]["image_id"] = 99
    content, report = convert("crowdpose", data.write(), data.folder)
    assert any("1 persons of images that are not in the file" in line for line in report)
    by_key = {(f"{row['image_id']}.png", tuple(row["keypoints"])): row["bbox"] for row in data.people if row["id"] != 8}
    names_of = {image["id"]: image["file_name"] for image in content["images"]}
    assert {
        (names_of[row["image_id"]], tuple(row["keypoints"])): row["bbox"] for row in content["annotations"]
    } == by_key
    for row in content["annotations"]:
        assert row["area"] == pytest.approx(0.53 * row["bbox"][2] * row["bbox"][3], abs=0.01)


def test_limbs_of_crowdpose_are_repaired(converted, sound):
    """Its 14 joints come with the limbs of COCO's 17."""
    data = sound()
    limbs = [
        [16, 14],
        [14, 12],
        [17, 15],
        [15, 13],
        [12, 13],
        [6, 12],
        [7, 13],
        [6, 7],
        [6, 8],
        [7, 9],
        [8, 10],
        [9, 11],
    ]
    data.category.update(keypoints=[*CROWDPOSE, "head", "neck"], skeleton=limbs)
    for person in data.people:
        person["keypoints"] = person["keypoints"][15:] + person["keypoints"][:6]
        person["num_keypoints"] = 14
    content, _ = converted("crowdpose", data.write(), data.folder)
    category = content["categories"][0]
    named = {tuple(sorted(category["keypoints"][end - 1] for end in limb)) for limb in category["skeleton"]}
    assert ("left_ankle", "left_knee") in named
    assert ("head", "neck") in named
    assert all("left" not in one or "right" not in other or one[5:] == other[6:] for one, other in named)


def test_limbs_out_of_range_are_dropped_with_a_note(converted, sound):
    data = sound()
    data.category["skeleton"] = [[1, 2], [17, 18]]
    content, report = converted("crowdpose", data.write(), data.folder)
    assert content["categories"][0]["skeleton"] == [[1, 2]]
    assert any("1 of 2 limbs" in line for line in report)


def test_images_of_another_size_are_skipped(converted, sound):
    data = sound()
    data.images[0].update(width=480, height=320)
    content, report = converted("crowdpose", data.write(), data.folder)
    assert len(content["images"]) == 5
    assert any("skipped: 20 persons of images whose file has another size" in line for line in report)


def test_category_of_crowdpose_by_its_id(converted, sound):
    data = sound()
    data.content["categories"].append(data.category | {"id": 2, "name": "dog"})
    content, _ = converted("crowdpose", data.write(), data.folder, category="1")
    assert len(content["annotations"]) == 120
    assert content["categories"][0]["name"] == "person"


def test_two_images_of_one_id_are_an_error(convert, sound):
    data = sound()
    data.images[1]["id"] = data.images[0]["id"]
    with pytest.raises(DistilPoseError, match=r"'1\.png' and '2\.png' the same id 1"):
        convert("crowdpose", data.write(), data.folder)
