"""Duplicate images, within a split and in two."""

from __future__ import annotations

import time

import cv2
import numpy as np
import pytest

from distilpose.curation.checks import check_sets
from distilpose.curation.checks.leakage import NEAR, look_alikes


def test_leakage_between_splits(sound):
    train, val = sound(seed=0), sound(seed=1)
    (val.folder / "3.png").write_bytes((train.folder / "2.png").read_bytes())  # the same file with another name
    near = cv2.imread(str(train.folder / "5.png"))
    cv2.imwrite(str(val.folder / "4.png"), np.clip(near.astype(int) + 3, 0, 255).astype(np.uint8))
    for number in (1, 2, 5, 6):
        (val.folder / f"{number}.png").rename(val.folder / f"v{number}.png")
        val.images[number - 1]["file_name"] = f"v{number}.png"
    val.file = val.root / "val.json"
    findings = check_sets([(train.write(), train.folder), (val.write(), val.folder)])
    by_code = {one.code: (one.severity, one.split, one.examples) for one in findings.entries}
    both = "set.json and val.json"
    assert by_code == {
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
            frame[0, 0] = (number % 256, number // 256, 0)  # other bytes, but the image looks the same
            cv2.imwrite(str(data.folder / f"{number}.png"), frame)
            data.images.append({"id": number, "file_name": f"{number}.png", "width": 240, "height": 160})
        for person in data.people:
            person["image_id"] = numbers[0]
    val.file = val.root / "val.json"
    findings = check_sets([(train.write(), train.folder), (val.write(), val.folder)])
    counts = {(one.code, one.split): one.count for one in findings.entries if "alike" in one.code}
    expected = {
        ("image-alike", "set.json"): first - 1,
        ("image-alike", "val.json"): second - 1,
        ("leakage-alike", "set.json and val.json"): second,
    }
    assert counts == {key: count for key, count in expected.items() if count}


@pytest.mark.slow
def test_similar_hashes_take_seconds_and_are_reported():
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
    assert not cut[:1000].any()  # for these, all earlier ones were compared
    assert cut[1000:-1].mean() > 0.99
