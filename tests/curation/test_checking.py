"""One fault at a time is put into a sound set: it is found by its name, on the right persons, and nothing else is."""

from __future__ import annotations

import json
import os

import cv2
import numpy as np
import pytest
from PIL import Image

from distilpose.curation.checking import check_sets
from distilpose.curation.findings import print_findings, write_findings
from distilpose.curation.image_files import MOST_PIXELS, climbs_out
from distilpose.curation.leakage import NEAR, look_alikes
from distilpose.errors import DistilPoseError


def put(person, joint, x, y, v=2):
    person["keypoints"][3 * joint : 3 * joint + 3] = [x, y, v]


def swap(person, one, other):
    keypoints = person["keypoints"]
    first, second = slice(3 * one, 3 * one + 3), slice(3 * other, 3 * other + 3)
    keypoints[first], keypoints[second] = keypoints[second], keypoints[first]


def found(data):
    data.write()
    return check_sets([(data.file, data.folder)])


def test_a_sound_set_has_no_finding(sound):
    data = sound()
    findings = found(data)
    assert findings.found == []
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


FAULTS = {
    # code: (severity, what is done to the set, examples)
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
    "num_keypoints-malformed": ("error", lambda d: d.people[4].update(num_keypoints=None), ["5"]),
    "num-keypoints": ("warning", lambda d: d.people[4].update(num_keypoints=0), ["5"]),
    "box-empty": ("warning", lambda d: d.people[4]["bbox"].__setitem__(2, 0), ["5"]),
    "area-missing": ("note", lambda d: d.people[4].pop("area"), ["5"]),
    "area-empty": ("warning", lambda d: d.people[4].update(area=0), ["5"]),
    "area-large": ("warning", lambda d: d.people[4].update(area=15000), ["5"]),
    "joint-outside-image": ("warning", lambda d: put(d.people[4], 10, 245, 80), ["5"]),
    "joint-at-zero": ("warning", lambda d: [put(d.people[4], 10, 0, 0), d.people[4].update(bbox=[0, 0, 150, 150])], ["5"]),
    "annotation-double": ("warning", lambda d: d.people.append(d.people[4] | {"id": 500}), ["500"]),
    "image-double": ("warning", lambda d: double(d), ["1.png = 7.png"]),
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


def double(data):
    (data.folder / "7.png").write_bytes((data.folder / "1.png").read_bytes())
    data.images.append({"id": 7, "file_name": "7.png", "width": 240, "height": 160})
    data.people[0]["image_id"] = 7


# what a fault brings with it
BRINGS = {
    "joint-outside-image": {"bone-long"},
    "joint-at-zero": {"area-missing", "bone-long"},
    "absurd": {"box-over-edge"},
    "area-malformed": {"area-missing"},
    "box-empty": {"joint-outside-box"},
}


@pytest.mark.parametrize("code", FAULTS)
def test_a_fault_is_found_and_nothing_else(sound, code):
    data = sound()
    severity, spoil, examples = FAULTS[code]
    spoil(data)
    findings = found(data)
    (one,) = [finding for finding in findings.found if finding.code == code]
    assert (one.severity, list(one.examples)) == (severity, examples)
    assert findings.codes() - BRINGS.get(code, set()) == {code}


def test_boxes_over_the_edge_outside_and_as_corners(sound):
    data = sound()
    data.people[0]["bbox"][2] = 300
    data.people[1]["bbox"][0] = 250
    findings = found(data)
    by_code = {finding.code: finding for finding in findings.found}
    assert by_code["box-over-edge"].examples == ("1",)
    assert by_code["box-outside"].examples == ("2",)
    assert "box-corners" not in by_code

    data = sound(seed=1)
    for person in data.people:
        x, y, width, height = person["bbox"]
        person["bbox"] = [x, y, x + width, y + height]
    assert "box-corners" in found(data).codes("error")


def test_a_bone_of_another_person_is_found(sound):
    data = sound()
    put(data.people[4], 0, 6, 155)  # the nose, far from the eyes
    data.people[4]["bbox"] = [1, 1, 200, 158]
    (one,) = [finding for finding in found(data).found if finding.code == "bone-long"]
    assert one.examples == ("5",)


def test_many_persons_whose_sides_disagree_are_a_warning(sound):
    data = sound()
    for person in data.people[:30]:
        cross(person)
    (one,) = [finding for finding in found(data).found if finding.code == "sides-disagree"]
    assert (one.severity, one.count) == ("warning", 30)


def test_some_mirrored_persons_are_a_warning(sound):
    data = sound()
    for person in data.people[:30]:
        for left in range(1, 17, 2):
            swap(person, left, left + 1)
    (one,) = found(data).found
    assert (one.code, one.severity, one.count) == ("sides-mirrored", "warning", 30)


def test_nobody_labelled(sound):
    data = sound()
    for person in data.people:
        person.update(keypoints=[0] * 51, num_keypoints=0)
    findings = found(data)
    assert findings.codes("error") == {"no-persons"}
    assert findings.codes("note") == {"person-without-joints"}


def test_names_without_partner_limbs_or_sigmas(sound):
    data = sound()
    data.category["keypoints"][1] = "left_antenna"
    assert {"joint-unpaired", "sigmas-missing"} <= found(data).codes()
    data = sound(seed=1)
    data.category["keypoints"] = [f"point {k}" for k in range(17)]
    assert {"no-flip-pairs", "sigmas-missing"} == found(data).codes()


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
def test_files_that_are_none(tmp_path, text, code):
    (tmp_path / "set.json").write_bytes(text)
    assert code in check_sets([(tmp_path / "set.json", tmp_path)]).codes("error")


def test_rubbish_in_every_place_is_told_and_not_raised(sound):
    rubbish = [None, True, -1, 10**400, 1e308, "x", [], {}, [[]], [None] * 51, ["0"] * 51]
    data = sound()
    for key in ("id", "image_id", "category_id", "bbox", "keypoints", "area", "num_keypoints", "iscrowd"):
        data.people.extend([data.people[0] | {"id": 1000 + len(data.people), key: value} for value in rubbish])
    for key in ("id", "file_name", "width"):
        data.images.extend([data.images[0] | {"id": 1000 + len(data.images), key: value} for value in rubbish])
    data.people.extend(rubbish)
    data.images.extend(rubbish)
    assert {"annotation-id", "box-malformed", "keypoints-malformed", "image-name"} <= found(data).codes("error")


def test_a_small_file_of_many_joints_takes_no_gigabytes(sound):
    import tracemalloc

    data = sound()
    data.category.update(keypoints=[f"joint {k}" for k in range(1000)], skeleton=[])
    data.content["annotations"] = [{}] * 50_000
    tracemalloc.start()
    try:
        assert "annotation-id" in found(data).codes("error")
        assert tracemalloc.get_traced_memory()[1] < 100e6  # a row for each would take 1.2 GB
    finally:
        tracemalloc.stop()


def test_names_that_are_no_text_are_printed_and_written(sound, tmp_path):
    import io

    from rich.console import Console

    data = sound()
    data.images[0]["file_name"] = "\ud800.jpg"
    findings = found(data)
    assert findings.found[0].examples == ("\\ud800.jpg",)
    data.category["keypoints"][1] = data.category["keypoints"][0] = "\ud800"
    findings.found += found(data).found  # this one has the name in its sentence
    assert "skeleton" in findings.codes("error")
    stream = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    print_findings(findings, Console(file=stream, width=200))
    stream.flush()
    write_findings(findings, tmp_path / "report")
    assert "\\ud800.jpg" in (tmp_path / "report" / "check.md").read_text(encoding="utf-8")


def test_missing_file_and_folder(tmp_path, sound):
    data = sound()
    with pytest.raises(DistilPoseError, match="does not exist"):
        check_sets([(tmp_path / "absent.json", tmp_path)])
    with pytest.raises(DistilPoseError, match="does not exist"):
        check_sets([(data.write(), tmp_path / "absent")])


def test_images_turned_by_exif(sound):
    data = sound(images=3)
    for number, (told, orientation) in enumerate([((240, 160), 6), ((160, 240), 6), ((240, 160), 3)], start=1):
        picture = Image.open(data.folder / f"{number}.png").convert("RGB")
        exif = Image.Exif()
        exif[0x0112] = orientation
        picture.save(data.folder / f"{number}.jpg", exif=exif)
        data.images[number - 1].update(file_name=f"{number}.jpg", width=told[0], height=told[1])
        assert (cv2.imread(str(data.folder / f"{number}.jpg")).shape[:2] == (240, 160)) == (orientation == 6)
    findings = {one.code: one.examples for one in found(data).found if one.code.startswith("image")}
    assert findings == {"image-rotated": ("1.jpg",), "image-exif": ("2.jpg",), "image-exif-unclear": ("3.jpg",)}


def test_unusual_modes_and_cut_off_files(sound):
    data = sound(images=4)
    Image.open(data.folder / "1.png").convert("RGB").convert("CMYK").save(data.folder / "1.jpg")
    data.images[0]["file_name"] = "1.jpg"
    Image.open(data.folder / "2.png").convert("RGBA").save(data.folder / "2.png")
    content = cv2.imencode(".jpg", cv2.imread(str(data.folder / "3.png")))[1].tobytes()
    (data.folder / "3.jpg").write_bytes(content[: len(content) // 2])
    data.images[2]["file_name"] = "3.jpg"
    findings = {one.code: one.examples for one in found(data).found}
    assert findings == {"image-deep": ("1.jpg",), "image-mode": ("2.png",), "image-unreadable": ("3.jpg",)}


def test_an_image_that_unpacks_to_gigabytes_is_not_unpacked(sound):
    import struct
    import zlib

    data = sound()
    width = height = 40_000
    assert width * height > MOST_PIXELS

    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = zlib.compress(bytes(3_000_000))
    bomb = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")
    (data.folder / "1.png").write_bytes(bomb)
    assert {(one.code, one.examples) for one in found(data).found} == {("image-huge", ("1.png",))}


def test_names_that_climb_out_are_never_opened(sound, tmp_path, monkeypatch):
    data = sound()
    secret = tmp_path / "secret.png"
    secret.write_bytes((data.folder / "1.png").read_bytes())
    (data.folder / "link.png").symlink_to(secret)
    (data.folder / "up").symlink_to(tmp_path)
    os.mkfifo(data.folder / "pipe.png")
    names = ["../../secret.png", str(secret), "link.png", "up/secret.png", "C:\\secret.png", "..\\secret.png", "a\0b"]
    data.images.extend({"id": 50 + k, "file_name": name, "width": 240, "height": 160} for k, name in enumerate(names))
    data.images.append({"id": 70, "file_name": "pipe.png", "width": 240, "height": 160})
    data.images.append({"id": 71, "file_name": "x" * 5000, "width": 240, "height": 160})
    from distilpose.curation import images

    opened = []
    real = images.read_header
    monkeypatch.setattr(images, "read_header", lambda path: opened.append(path.name) or real(path))
    result = found(data).found
    findings = {one.code: one.count for one in result}
    assert findings["image-path-outside"] == len(names)
    assert "links" in next(one.told for one in result if one.code == "image-path-outside")
    assert findings["image-missing"] == 2
    assert sorted(opened) == [f"{number}.png" for number in range(1, 7)]


def test_a_broken_image_is_not_huge_for_its_name(sound):
    data = sound()
    (data.folder / "smaller.png").write_bytes(b"no picture")
    data.images[0]["file_name"] = "smaller.png"
    assert {one.code: one.examples for one in found(data).found} == {"image-unreadable": ("smaller.png",)}


@pytest.mark.parametrize("name", ["a/b.jpg", "a..b.jpg", "...jpg", "ünï.jpg"])
def test_names_that_stay_inside(name):
    assert not climbs_out(name)


def test_leakage_between_splits(sound):
    train, val = sound(seed=0), sound(seed=1)
    (val.folder / "3.png").write_bytes((train.folder / "2.png").read_bytes())  # the same file, named otherwise
    near = cv2.imread(str(train.folder / "5.png"))
    cv2.imwrite(str(val.folder / "4.png"), np.clip(near.astype(int) + 3, 0, 255).astype(np.uint8))
    for number in (1, 2, 5, 6):
        (val.folder / f"{number}.png").rename(val.folder / f"v{number}.png")
        val.images[number - 1]["file_name"] = f"v{number}.png"
    val.file = val.root / "val.json"
    findings = check_sets([(train.write(), train.folder), (val.write(), val.folder)])
    told = {one.code: (one.severity, one.split, one.examples) for one in findings.found}
    both = "set.json and val.json"
    assert told == {
        "leakage": ("error", both, ("2.png = 3.png",)),
        "leakage-alike": ("warning", both, ("5.png ~ 4.png",)),
        "names-shared": ("note", both, ("4.png",)),
    }


def flipped(draw, hashes, most):
    """Hashes with 0 to `most` of their bits changed."""
    changed = hashes.copy()
    for place in range(len(changed)):
        for bit in draw.choice(64, draw.integers(0, most + 1), replace=False):
            changed[place] ^= np.uint64(1 << int(bit))
    return changed


def test_look_alikes_are_those_of_comparing_all():
    draw = np.random.default_rng(0)
    hashes = draw.integers(1, 2**64, 200, dtype=np.uint64)
    others = np.concatenate([flipped(draw, hashes, 6), hashes[:20], np.zeros(3, dtype=np.uint64)])
    hashes = np.concatenate([hashes, np.zeros(2, dtype=np.uint64), flipped(draw, hashes, 2)])
    differ = np.array([[bin(int(one) ^ int(two)).count("1") for one in hashes] for two in others])
    near = (differ <= NEAR) & (others != 0)[:, None] & (hashes != 0)
    twins, cut = look_alikes(hashes, others)
    np.testing.assert_array_equal(twins, np.where(near.any(1), near.argmax(1), -1))
    assert not cut.any()


@pytest.mark.parametrize(("first", "second"), [(100, 200), (100, 40), (1, 60)])
def test_all_frames_of_a_still_camera_are_leakage(sound, first, second):
    train, val = sound(images=1), sound(images=1, seed=1)
    frame = cv2.imread(str(train.folder / "1.png"))
    for data, numbers in ((train, range(1, first + 1)), (val, range(1001, 1001 + second))):
        data.images.clear()
        for number in numbers:
            frame[0, 0] = (number % 256, number // 256, 0)  # other bytes, the same look
            cv2.imwrite(str(data.folder / f"{number}.png"), frame)
            data.images.append({"id": number, "file_name": f"{number}.png", "width": 240, "height": 160})
        for person in data.people:
            person["image_id"] = numbers[0]
    val.file = val.root / "val.json"
    findings = check_sets([(train.write(), train.folder), (val.write(), val.folder)])
    counts = {(one.code, one.split): one.count for one in findings.found if "alike" in one.code}
    expected = {
        ("image-alike", "set.json"): first - 1,
        ("image-alike", "val.json"): second - 1,
        ("leakage-alike", "set.json and val.json"): second,
    }
    assert counts == {key: count for key, count in expected.items() if count}


def test_hashes_half_alike_take_seconds_and_are_told():
    import time

    draw = np.random.default_rng(0)
    hashes = draw.integers(0, 2**32, 50_000, dtype=np.uint64) + np.uint64(1 << 40)
    hashes[-1] = ~hashes[0]
    start = time.process_time()
    twins, cut = look_alikes(hashes[:25_000], hashes[25_000:])
    assert time.process_time() - start < 10
    assert cut[:-1].mean() > 0.99
    assert not cut[-1]
    assert twins[-1] == -1
    _, cut = look_alikes(hashes, hashes)
    assert not cut[:1000].any()  # of these all that are further up were compared
    assert cut[1000:-1].mean() > 0.99


def test_splits_with_other_joints(sound):
    train, val = sound(seed=0), sound(seed=1)
    val.category["keypoints"][0] = "snout"
    findings = check_sets([(train.write(), train.folder), (val.write(), val.folder)])
    assert "joints-differ" in findings.codes("error")


def test_a_category_is_chosen(sound):
    data = sound()
    data.content["categories"].append(data.category | {"id": 2, "name": "dog"})
    assert check_sets([(data.write(), data.folder)], category="person").found == []
    assert "no-persons" in check_sets([(data.file, data.folder)], category="dog").codes("error")


def test_many_persons_take_seconds(sound):
    import time

    data = sound()
    row = json.dumps(data.people[4])
    rows = ",".join(row.replace('"id": 5', f'"id": {k}') for k in range(30_000))
    head = json.dumps({key: data.content[key] for key in ("images", "categories")})
    data.file.write_text(head[:-1] + ', "annotations": [' + rows + "]}")
    start = time.process_time()
    findings = check_sets([(data.file, data.folder)])
    assert time.process_time() - start < 20
    assert {one.code: one.count for one in findings.found}["annotation-double"] == 29_999
