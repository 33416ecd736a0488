"""CrowdPose: its joints, limbs, boxes and categories."""

from __future__ import annotations

import numpy as np
import pytest

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
    data.images[1].update(width=241)  # rounded
    content, report = converted("crowdpose", data.write(), data.folder)
    assert len(content["images"]) == 5
    assert any("skipped: 20 persons of images whose file has another size" in line for line in report)


def test_category_of_crowdpose_by_its_id(converted, sound):
    data = sound()
    data.content["categories"].append(data.category | {"id": 2, "name": "dog"})
    content, _ = converted("crowdpose", data.write(), data.folder, category="1")
    assert len(content["annotations"]) == 120
    assert content["categories"][0]["name"] == "person"


def test_limbs_counted_from_zero_keep_their_joints(converted, sound):
    data = sound()
    data.category["skeleton"] = [[0, 1], [15, 16]]
    content, _ = converted("crowdpose", data.write(), data.folder)
    assert content["categories"][0]["skeleton"] == [[1, 2], [16, 17]]


def test_an_image_id_of_two_images_is_not_used(converted, sound):
    data = sound()
    data.images[1]["id"] = data.images[0]["id"]
    content, report = converted("crowdpose", data.write(), data.folder)
    assert any("20 persons of an image id that several images have" in line for line in report)
    assert not {"1.png", "2.png"} & {image["file_name"] for image in content["images"]}


@pytest.mark.parametrize(("crowd", "expected"), [("0", 0), ("1", 1), (False, 0), (None, 0)])
def test_crowds_in_any_spelling(converted, sound, crowd, expected):
    data = sound()
    data.people[0]["iscrowd"] = crowd
    content, _ = converted("crowdpose", data.write(), data.folder)
    assert sum(row["iscrowd"] for row in content["annotations"]) == expected


def test_joints_in_fractions_are_refused(rejected, sound):
    data = sound()
    for person in data.people:
        person["keypoints"] = [
            value if place % 3 == 2 else value / 240 for place, value in enumerate(person["keypoints"])
        ]
    rejected("crowdpose", data.write(), data.folder, "keypoints", "fractions", "pixels")
