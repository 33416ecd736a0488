"""MPII: the release's .mat and the .json of its persons."""

from __future__ import annotations

import json

import numpy as np
import pytest
from annotated import rows
from scipy.io import savemat

from distilpose.curation.formats.mpii import NAMES


def struct(**fields):
    """A 1 x 1 structure."""
    kind = [(name, object) for name in fields]
    value = np.empty((1, 1), dtype=kind)
    for name, content in fields.items():
        value[0, 0][name] = content
    return value


def test_mpii_release(convert, sound, tmp_path):
    data = sound(images=3)
    draw = np.random.default_rng(0)
    places = draw.uniform(20, 140, (2, 16, 2)).round(2)
    seen = [1, "0", 1, 0, "1", 1, 1, 1, None, None, 1, 1, 1, 1, 1, 0]
    people = []
    for person in range(2):
        points = [
            struct(x=float(x), y=float(y), id=number, is_visible=np.zeros((0, 0)) if flag is None else flag)
            for number, ((x, y), flag) in enumerate(zip(places[person], seen, strict=True))
            if not (person == 1 and number == 4)
        ]
        row = {"annopoints": struct(point=np.concatenate(points[::-1], axis=1))}  # any order: the id counts
        people.append(struct(x1=30.0, y1=10.0, x2=60.0, y2=50.0, **row))
    entries = [
        struct(image=struct(name="1.png"), annorect=np.concatenate(people, axis=1)),
        struct(
            image=struct(name="2.png"), annorect=struct(x1=1.0, y1=1.0, x2=9.0, y2=9.0, annopoints=np.zeros((0, 0)))
        ),
        struct(image=struct(name="3.png"), annorect=np.zeros((0, 0))),
    ]
    release = struct(annolist=np.concatenate(entries, axis=1), img_train=np.array([[1, 0, 0]]))
    savemat(tmp_path / "mpii.mat", {"RELEASE": release})
    content, report = convert("mpii", tmp_path / "mpii.mat", data.folder)
    assert any("1 persons without joints (test images" in line for line in report)
    assert len(content["annotations"]) == 2
    flags = np.array([1 if str(flag) == "0" else 2 for flag in seen])
    for person, (name, joints) in enumerate(rows(content, 16)):
        present = np.arange(16) != 4 if person == 1 else np.ones(16, dtype=bool)
        assert name == "1.png"
        np.testing.assert_allclose(joints[present, :2], places[person][present] - 1, atol=0.006)  # MATLAB counts from 1
        np.testing.assert_array_equal(joints[present, 2], flags[present])
        assert (joints[~present] == 0).all()
        x, y, width, height = content["annotations"][person]["bbox"]
        assert max(x - 29, y - 9, 59 - x - width, 49 - y - height) <= 0  # the head's box is inside
    assert content["categories"][0]["keypoints"] == list(NAMES)


def test_mpii_json(convert, sound, tmp_path):
    data = sound(images=2)
    places = np.random.default_rng(0).uniform(20, 140, (16, 2)).round(2)
    visible = [1] * 14 + [0, 0]
    people = [
        {"image": "2.png", "joints": places.tolist(), "joints_vis": visible, "center": [80, 80], "scale": 0.7},
        {"image": "1.png", "center": [80, 80], "scale": 0.7},
    ]
    (tmp_path / "train.json").write_text(json.dumps(people))
    content, report = convert("mpii", tmp_path / "train.json", data.folder)
    ((name, joints),) = rows(content, 16)
    assert name == "2.png"
    np.testing.assert_allclose(joints[:14, :2], places[:14] - 1, atol=0.006)
    assert joints[:, 2].tolist() == [2] * 14 + [0, 0]
    assert any(line.startswith("skipped: 1 persons without 16") for line in report)


@pytest.mark.parametrize(
    "value", [np.zeros((0, 0)), "x", 1.0, np.ones((2, 2)), np.array([["a", 1]], dtype=object), 1e308, np.nan]
)
def test_invalid_values_in_every_field_of_mpii_mat(convert_corrupted, sound, tmp_path, value):
    def release(bad):
        def pick(name, good):
            return value if name == bad else good

        joint = struct(x=pick("x", 5.0), y=pick("y", 6.0), id=pick("id", 0), is_visible=pick("v", 1))
        rect = struct(
            x1=pick("x1", 1.0), y1=1.0, x2=9.0, y2=9.0, annopoints=pick("points", struct(point=pick("point", joint)))
        )
        entry = struct(image=pick("image", struct(name=pick("name", "1.png"))), annorect=pick("rect", rect))
        return pick("all", struct(annolist=pick("list", entry), img_train=pick("train", np.array([[1]]))))

    data = sound(images=1)
    for bad in ("x", "y", "id", "v", "x1", "points", "point", "image", "name", "rect", "list", "train", "all"):
        savemat(tmp_path / "a.mat", {"RELEASE": release(bad)})
        convert_corrupted("mpii", tmp_path / "a.mat", data.folder)
    savemat(tmp_path / "a.mat", {"RELEASE": release(None)})
    assert convert_corrupted("mpii", tmp_path / "a.mat", data.folder)
