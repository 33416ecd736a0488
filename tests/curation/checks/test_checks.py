"""One problem at a time in a valid set: it is found in the right place, and nothing else is found."""

from __future__ import annotations

import json
import time

import cv2
import numpy as np
import pytest
from annotated import put, swap

from distilpose.curation.checks import check_sets


def test_a_sound_set_has_no_finding(sound):
    data = sound()
    findings = data.check()
    assert findings.entries == []
    assert findings.facts == {
        "set.json": {"images": 6, "persons": 120, "persons with labelled joints": 120, "labelled joints": 2040}
    }


def unlabel(person, joint):
    put(person, joint, 0, 0, 0)
    person["num_keypoints"] -= 1


def mirror_all(data):
    for person in data.people:
        for left in range(1, 17, 2):
            swap(person, left, left + 1)


def cross(person):
    swap(person, 11, 12)


PROBLEMS = {
    # code: (severity, change of the set, examples)
    "image-id": ("error", lambda d: d.images.append({"file_name": "1.png"}), ["place 6"]),
    "image-id-twice": ("error", lambda d: d.images.append(dict(d.images[1])), ["2"]),
    "image-name": ("error", lambda d: d.images.append({"id": 9, "width": 4, "height": 4}), ["9"]),
    "image-no-size": ("error", lambda d: d.images[2].update(width="240"), ["3"]),
    "image-missing": ("error", lambda d: (d.folder / "4.png").unlink(), ["4.png"]),
    "image-unreadable": ("error", lambda d: (d.folder / "4.png").write_bytes(b"no picture"), ["4.png"]),
    "image-size": ("error", lambda d: d.images[0].update(width=260), ["1.png"]),
    "image-path-outside": ("error", lambda d: d.images[0].update(file_name="../images/1.png"), ["../images/1.png"]),
    "annotation-id": ("error", lambda d: d.people.append({"image_id": 1, "category_id": 1}), ["place 120"]),
    "dangling-image": ("error", lambda d: d.people[4].update(image_id=77), ["5"]),
    "dangling-category": ("error", lambda d: d.people[4].update(category_id=3), ["5"]),
    "keypoints-missing": ("error", lambda d: d.people[4].pop("keypoints"), ["5"]),
    "keypoints-length": ("error", lambda d: d.people[4]["keypoints"].pop(), ["5"]),
    "keypoints-malformed": ("error", lambda d: d.people[4]["keypoints"].__setitem__(0, "12"), ["5"]),
    "not-finite": ("error", lambda d: d.people[4]["keypoints"].__setitem__(0, float("nan")), ["5"]),
    "absurd": ("error", lambda d: d.people[4]["bbox"].__setitem__(3, 1e7), ["5"]),
    "visibility": ("error", lambda d: d.people[4]["keypoints"].__setitem__(11, 3), ["5"]),
    "box-missing": ("error", lambda d: d.people[4].pop("bbox"), ["5"]),
    "box-malformed": ("error", lambda d: d.people[4].update(bbox=[1, 2, 3]), ["5"]),
    "area-malformed": ("error", lambda d: d.people[4].update(area="large"), ["5"]),
    "num_keypoints-malformed": ("error", lambda d: d.people[4].update(num_keypoints="many"), ["5"]),
    "num-keypoints": ("warning", lambda d: d.people[4].update(num_keypoints=0), ["5"]),
    "box-empty": ("warning", lambda d: d.people[4]["bbox"].__setitem__(2, 0), ["5"]),
    "area-missing": ("note", lambda d: d.people[4].pop("area"), ["5"]),
    "area-empty": ("warning", lambda d: d.people[4].update(area=0), ["5"]),
    "area-large": ("warning", lambda d: d.people[4].update(area=15000), ["5"]),
    "area-small": (
        "warning",
        lambda d: [person.update(area=person["area"] / 1e6) for person in d.people],
        ["1", "2", "3", "4", "5"],
    ),
    "joint-outside-image": ("warning", lambda d: put(d.people[4], 10, 245, 80), ["5"]),
    "joint-at-zero": ("warning", lambda d: [put(d.people[4], 10, 0, 0), d.people[4].update(bbox=[0, 0, 150, 150])], ["5"]),
    "annotation-duplicate": ("warning", lambda d: d.people.append(d.people[4] | {"id": 500}), ["500"]),
    "image-duplicate": ("warning", lambda d: duplicate(d), ["1.png = 7.png"]),
    "image-without-person": ("note", lambda d: picture(d, "7.png", 99), ["7.png"]),
    "joint-never": ("warning", lambda d: [unlabel(person, 0) for person in d.people], ["nose"]),
    "joint-rare": ("warning", lambda d: [unlabel(person, 0) for person in d.people[5:]], ["nose (5)"]),
    "sides-swapped": ("error", lambda d: [swap(person, 11, 12) for person in d.people[:90]], ["left_hip / right_hip"]),
    "sides-mirrored": ("error", mirror_all, ["1", "2", "3", "4", "5"]),
    "sides-disagree": ("note", lambda d: cross(d.people[4]), ["5"]),
    "no-limbs": ("note", lambda d: d.category.pop("skeleton"), ["set.json"]),
    "several-categories": ("error", lambda d: add_category(d), ["person", "dog"]),
    "no-keypoints": ("error", lambda d: d.category.pop("keypoints"), ["person"]),
    "skeleton": ("error", lambda d: d.category.update(skeleton=[[1, 99]]), ["person"]),
    "category-malformed": ("error", lambda d: d.content["categories"].append({"name": "dog"}), ["1"]),
    "joints-too-many": ("error", lambda d: d.category.update(keypoints=[f"j{k}" for k in range(1001)]), ["person"]),
    "set-small": ("warning", lambda d: d.content.update(annotations=d.people[:90]), ["set.json"]),
}  # fmt: skip


def add_category(data):
    data.content["categories"].append(data.category | {"id": 2, "name": "dog"})


def picture(data, name, seed):
    coarse = np.random.default_rng(seed).integers(0, 255, (8, 12, 3), dtype=np.uint8)
    cv2.imwrite(str(data.folder / name), cv2.resize(coarse, (240, 160), interpolation=cv2.INTER_NEAREST))
    data.images.append({"id": len(data.images) + 1, "file_name": name, "width": 240, "height": 160})


def duplicate(data):
    (data.folder / "7.png").write_bytes((data.folder / "1.png").read_bytes())
    data.images.append({"id": 7, "file_name": "7.png", "width": 240, "height": 160})
    data.people[0]["image_id"] = 7


# other findings that a problem causes
SIDE_EFFECTS = {
    "joint-outside-image": {"bone-long"},
    "joint-at-zero": {"area-missing", "bone-long"},
    "absurd": {"box-over-edge"},
    "area-malformed": {"area-missing"},
    "box-empty": {"joint-outside-box"},
    "annotation-duplicate": {"image-crowded"},  # a sound set has 20 persons on each image
}


@pytest.mark.parametrize("code", PROBLEMS)
def test_a_problem_is_found_and_nothing_else(sound, code):
    data = sound()
    severity, corrupt, examples = PROBLEMS[code]
    corrupt(data)
    findings = data.check()
    (one,) = [finding for finding in findings.entries if finding.code == code]
    assert (one.severity, list(one.examples)) == (severity, examples)
    assert findings.codes() - SIDE_EFFECTS.get(code, set()) == {code}


def test_splits_with_other_joints(sound):
    train, val = sound(seed=0), sound(seed=1)
    val.category["keypoints"][0] = "snout"
    findings = check_sets([(train.write(), train.folder), (val.write(), val.folder)])
    assert "joints-differ" in findings.codes("error")


def test_a_category_is_chosen(sound):
    data = sound()
    data.content["categories"].append(data.category | {"id": 2, "name": "dog"})
    assert check_sets([(data.write(), data.folder)], category="person").entries == []
    assert "no-persons" in check_sets([(data.file, data.folder)], category="dog").codes("error")


def test_missing_file_and_folder(tmp_path, sound):
    data = sound()
    for file, folder, code in (
        (tmp_path / "absent.json", tmp_path, "not-json"),
        (data.write(), tmp_path / "absent", "image-missing"),
        (data.folder, data.file, "not-json"),
    ):
        assert check_sets([(file, folder)]).codes("error") == {code}


@pytest.mark.slow
def test_many_persons_take_seconds(sound):
    data = sound()
    row = json.dumps(data.people[4])
    rows = ",".join(row.replace('"id": 5', f'"id": {k}') for k in range(30_000))
    head = json.dumps({key: data.content[key] for key in ("images", "categories")})
    data.file.write_text(head[:-1] + ', "annotations": [' + rows + "]}")
    start = time.process_time()
    findings = check_sets([(data.file, data.folder)])
    assert time.process_time() - start < 20
    assert {one.code: one.count for one in findings.entries}["annotation-duplicate"] == 29_999
