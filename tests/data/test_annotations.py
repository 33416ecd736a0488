"""Annotation files: the content of a valid file, and the error message for each invalid one."""

from __future__ import annotations

import json
import math
import re

import pytest

from distilpose.curation.checks.findings import Findings
from distilpose.curation.checks.reading import read_set
from distilpose.data.annotations import load_annotations
from distilpose.data.units import is_crowd
from distilpose.errors import DistilPoseError
from distilpose.evaluation.coco_ap import is_counted
from distilpose.skeleton import COCO


@pytest.fixture
def spoiled(tiny_coco):
    """A function that changes a valid annotation file and returns its path."""
    path = tiny_coco(train=3, val=3) / "annotations" / "val.json"

    def change(how):
        content = json.loads(path.read_text())
        how(content)
        path.write_text(json.dumps(content))
        return path

    return change


def test_good_file(tiny_coco):
    path = tiny_coco(val=4) / "annotations" / "val.json"
    content = json.loads(path.read_text())
    read = load_annotations(path)
    assert read.skeleton == COCO
    assert sorted(read.images) == [1, 2, 3, 4]
    assert read.annotation_ids.tolist() == [entry["id"] for entry in content["annotations"]]
    assert read.keypoints.shape == (len(content["annotations"]), 17, 2)
    first = content["annotations"][0]
    assert read.labelled[0].tolist() == [value > 0 for value in first["keypoints"][2::3]]
    assert read.boxes[0].tolist() == first["bbox"]


def test_real_files_have_the_persons_the_readme_counts(shared_data):
    mini = shared_data / "coco-mini" / "annotations"
    val = load_annotations(mini / "person_keypoints_val2017.json")
    assert (len(val.annotation_ids), len(val.images)) == (314, 143)
    assert len(load_annotations(mini / "person_keypoints_train2017.json").annotation_ids) == 149
    assert val.skeleton == COCO
    leeds = load_annotations(shared_data / "lspet" / "annotations" / "lspet_val.json")
    assert len(leeds.annotation_ids) == 999
    assert leeds.skeleton.num_keypoints == 14
    assert leeds.skeleton.flip_order == [5, 4, 3, 2, 1, 0, 11, 10, 9, 8, 7, 6, 12, 13]
    assert leeds.skeleton.sigmas[-2:] == (0.079, 0.079)


def test_a_category_may_be_repeated_word_for_word(spoiled):
    """As in files that were put together."""
    path = spoiled(lambda content: content["categories"].append(content["categories"][0]))
    assert load_annotations(path).skeleton == COCO


def test_crowds_and_unlabelled_persons_are_left_out(spoiled):
    def change(content):
        content["annotations"][0]["iscrowd"] = 1
        content["annotations"][1]["keypoints"] = [0] * 51
        content["annotations"][1]["num_keypoints"] = 0

    before = len(load_annotations(spoiled(lambda content: None)).annotation_ids)
    assert len(load_annotations(spoiled(change)).annotation_ids) == before - 2


@pytest.mark.parametrize(
    ("value", "crowd"), [("0", False), ("", False), (None, False), (0.0, False), ("1", True), (1, True)]
)
def test_every_reader_takes_the_same_annotations_as_crowds(spoiled, value, crowd):
    """Spreadsheets write numbers as text."""
    path = spoiled(lambda content: content["annotations"][0].update(iscrowd=value))
    first = json.loads(path.read_text())["annotations"][0]
    assert is_crowd(first) is crowd
    assert is_counted(first, first["category_id"]) is not crowd
    assert (first["id"] in load_annotations(path).annotation_ids) is not crowd
    checked = read_set(path, path.parent, Findings())
    assert (first["id"] in checked.ids) is not crowd


def test_the_joints_decide_whether_a_person_is_labelled(spoiled, caplog):
    """Exporters write 'num_keypoints' 0 for all persons."""

    def change(content):
        for person in content["annotations"][:2]:
            person["num_keypoints"] = 0

    before = load_annotations(spoiled(lambda content: None))
    assert not caplog.text
    assert load_annotations(spoiled(change)).annotation_ids.tolist() == before.annotation_ids.tolist()
    assert "2 persons have another 'num_keypoints' than labelled joints" in caplog.text


@pytest.mark.parametrize("placeholder", [0, -1, None])
def test_a_placeholder_of_an_area_is_replaced_by_a_share_of_the_box(placeholder, spoiled, caplog):
    path = spoiled(set_first("area", placeholder))
    first = load_annotations(path)
    assert first.areas[0] == pytest.approx(0.53 * first.boxes[0, 2] * first.boxes[0, 3])
    assert ("1 persons have an 'area' of 0 or less" in caplog.text) == (placeholder is not None)


def test_areas_that_are_fractions_are_told(spoiled, caplog):
    def change(content):
        for person in content["annotations"]:
            person["area"] /= 160 * 120

    load_annotations(spoiled(change))
    assert re.search(r"(\d+) persons have an 'area' below 1% of their box", caplog.text)


@pytest.mark.parametrize("visibility", [0.03, 3, -1])
def test_other_visibilities_are_counted(visibility, spoiled, caplog):
    """Labels made from predictions have scores in that place."""

    def change(content):
        content["annotations"][0]["keypoints"] = [50, 50, visibility] + [40, 40, 2] * 16

    assert load_annotations(spoiled(change)).labelled[0, 0] == (visibility > 0)
    assert f"1 joints have a visibility other than 0, 1 or 2, such as {visibility}" in caplog.text


@pytest.mark.parametrize("place", [0, -1])
def test_labelled_joints_where_tools_put_none_are_counted(place, spoiled, caplog):
    load_annotations(spoiled(set_first("keypoints", [place, place, 2] + [40, 40, 2] * 16)))
    assert "1 labelled joints lie at (0, 0) or (-1, -1)" in caplog.text


def test_joints_in_fractions_are_refused(spoiled):
    def change(content):
        for person in content["annotations"]:
            person["keypoints"] = [0.25, 0.75, 2] * 17

    with pytest.raises(DistilPoseError, match=r"above 0\.75 in 'keypoints'.*fractions.*pixels"):
        load_annotations(spoiled(change))


def test_skeleton_can_be_given(spoiled):
    path = spoiled(lambda content: None)
    assert load_annotations(path, skeleton={"sigmas": [0.1] * 17}).skeleton.sigmas == (0.1,) * 17
    with pytest.raises(DistilPoseError, match=r"'sigma'.*flip_pairs"):
        load_annotations(path, skeleton={"sigma": [0.1] * 17})


def test_category_is_chosen_by_name_or_id(spoiled):
    def add_second(content):
        content["categories"].append({"id": 7, "name": "dog", "keypoints": ["nose", "tail"], "skeleton": [[1, 2]]})
        dog = content["annotations"][0] | {"id": 9999, "category_id": 7, "keypoints": [5, 5, 2, 9, 9, 1]}
        content["annotations"].append(dog | {"num_keypoints": 2})

    path = spoiled(add_second)
    assert load_annotations(path, "dog").skeleton.names == load_annotations(path, 7).skeleton.names == ("nose", "tail")
    assert load_annotations(path, "dog").annotation_ids.tolist() == [9999]
    with pytest.raises(DistilPoseError, match=r"data\.category.*person \(id 1\), dog \(id 7\)"):
        load_annotations(path)
    with pytest.raises(DistilPoseError, match=r"'cat'.*person \(id 1\), dog \(id 7\)"):
        load_annotations(path, "cat")


def set_first(key, value):
    return lambda content: content["annotations"][0].__setitem__(key, value)


def drop_first(group, key):
    return lambda content: content[group][0].pop(key)


BAD = {
    "no images": (lambda content: content.pop("images"), "no list 'images'"),
    "no annotations": (lambda content: content.pop("annotations"), "no list 'annotations'"),
    "no categories": (lambda content: content.pop("categories"), "no list 'categories'"),
    "no keypoints": (drop_first("annotations", "keypoints"), "Annotation 100 .* no 'keypoints'"),
    "no bbox": (drop_first("annotations", "bbox"), "Annotation 100 .* no 'bbox'"),
    "no id": (drop_first("annotations", "id"), "Annotation at position 0 .* no 'id'"),
    "no image_id": (drop_first("annotations", "image_id"), "Annotation 100 .* no 'image_id'"),
    "no file_name": (drop_first("images", "file_name"), "Image 1 .* no 'file_name'"),
    "no width": (drop_first("images", "width"), "Image 1 .* no 'width'"),
    "keypoint count": (set_first("keypoints", [1, 2, 2] * 16), "annotation 100 .* 48 numbers, expected 51"),
    "nan": (set_first("keypoints", [math.nan, 2, 2] + [1, 2, 2] * 16), "annotation 100 .* expected 51 .*nan"),
    "infinite": (set_first("bbox", [1, 2, math.inf, 4]), "'bbox' of annotation 100 .* expected 4 .*inf"),
    "short box": (set_first("bbox", [1, 2, 3]), "'bbox' of annotation 100 .* 3 numbers, expected 4"),
    "words": (set_first("bbox", ["a", 2, 3, 4]), "'bbox' of annotation 100 .*expected 4 .*'a'"),
    "category twice": (
        lambda content: content["categories"].append({**content["categories"][0], "name": "dog"}),
        "Category id 1 has two contents",
    ),
    "text id": (set_first("id", "first"), "'first', expected a whole number"),
    "numbers as text": (set_first("keypoints", ["1"] * 51), "annotation 100 .*expected 51"),
    "id beyond 64 bits": (set_first("id", 2**70), "expected a whole number of at most 64 bits"),
    "limbs without pairs": (lambda content: content["categories"][0].update(skeleton=[1, 2, 3]), "pairs of joint num"),
    "twice": (
        lambda content: content["annotations"].append(content["annotations"][0]),
        "Annotation id 100 occurs twice",
    ),
    "image twice": (lambda content: content["images"].append(content["images"][0]), "Image id 1 occurs twice"),
    "unknown image": (set_first("image_id", 77), "Annotation 100 .* image_id 77"),
    "no joints": (lambda content: content["categories"][0].pop("keypoints"), "one category with 'keypoints'"),
    "empty": (lambda content: content["annotations"].clear(), "no person of category 'person'"),
    "a list": (lambda content: content.update(images={}), "no list 'images'"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_file_names_its_place(spoiled, case):
    how, message = BAD[case]
    path = spoiled(how)
    with pytest.raises(DistilPoseError, match=message) as error:
        load_annotations(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_missing_file_and_no_json(tmp_path):
    with pytest.raises(DistilPoseError, match=r"none\.json does not exist.*data\.root"):
        load_annotations(tmp_path / "none.json")
    (tmp_path / "half.json").write_text('{"images": [')
    with pytest.raises(DistilPoseError, match=r"half\.json is not JSON"):
        load_annotations(tmp_path / "half.json")
    with pytest.raises(DistilPoseError, match="cannot be read"):
        load_annotations(tmp_path)


def test_endless_nesting(tmp_path):
    (tmp_path / "deep.json").write_text("[" * 200_000)
    with pytest.raises(DistilPoseError, match=r"deep\.json is not JSON"):
        load_annotations(tmp_path / "deep.json")


def test_a_category_whose_name_is_the_id_of_another(tiny_coco):
    file = tiny_coco() / "annotations" / "val.json"
    content = json.loads(file.read_text())
    content["categories"] = [{**content["categories"][0], "id": number, "name": str(1 - number)} for number in (0, 1)]
    file.write_text(json.dumps(content))
    assert load_annotations(file, 1).category_id == 1
    with pytest.raises(DistilPoseError, match="no person of category '1'"):  # the one of that name, which has id 0
        load_annotations(file, "1")
