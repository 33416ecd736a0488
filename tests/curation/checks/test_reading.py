"""Files of another format, invalid categories, and invalid values in every place."""

from __future__ import annotations

import tracemalloc

import pytest

from distilpose.curation.checks import check_sets


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (b"", "not-json"),
        (b"\xff\xfe\x00", "not-json"),
        (b"[" * 200_000, "not-json"),
        (b"[]", "not-coco"),
        (b'{"images": [], "annotations": {}}', "not-coco"),
        (b'{"images": [], "annotations": [], "categories": []}', "no-keypoints"),
        (b'{"images": [1, null, []], "annotations": [], "categories": [3, {"id": true, "name": "x"}]}', "no-keypoints"),
    ],
)
def test_files_of_another_form(tmp_path, text, code):
    (tmp_path / "set.json").write_bytes(text)
    assert code in check_sets([(tmp_path / "set.json", tmp_path)]).codes("error")


def test_joints_without_partner_or_sigmas(sound):
    data = sound()
    data.category["keypoints"][1] = "left_antenna"
    assert {"joint-unpaired", "sigmas-missing"} <= data.check().codes()
    data = sound(seed=1)
    data.category["keypoints"] = [f"point {k}" for k in range(17)]
    assert {"no-flip-pairs", "sigmas-missing"} == data.check().codes()


def test_invalid_values_in_every_place_is_reported(sound):
    invalid = [None, True, -1, 10**400, 1e308, "x", [], {}, [[]], [None] * 51, ["0"] * 51]
    data = sound()
    for key in ("id", "image_id", "category_id", "bbox", "keypoints", "area", "num_keypoints", "iscrowd"):
        data.people.extend([data.people[0] | {"id": 1000 + len(data.people), key: value} for value in invalid])
    for key in ("id", "file_name", "width"):
        data.images.extend([data.images[0] | {"id": 1000 + len(data.images), key: value} for value in invalid])
    data.people.extend(invalid)
    data.images.extend(invalid)
    assert {"annotation-id", "box-malformed", "keypoints-malformed", "image-name"} <= data.check().codes("error")


def test_a_small_file_of_many_joints_takes_no_gigabytes(sound):
    data = sound()
    data.category.update(keypoints=[f"joint {k}" for k in range(1000)], skeleton=[])
    data.content["annotations"] = [{}] * 50_000
    tracemalloc.start()
    try:
        assert "annotation-id" in data.check().codes("error")
        assert tracemalloc.get_traced_memory()[1] < 100e6  # one row per annotation would need 1.2 GB
    finally:
        tracemalloc.stop()
