"""What holds for several formats: files of another kind, names, options and invalid."""

from __future__ import annotations

import json

import pytest
from annotated import key_point

from distilpose.curation.formats import FORMATS


@pytest.mark.parametrize(
    ("form", "name", "content", "facts"),
    [
        ("lsp", "joints.mat", b"no matlab", ["MATLAB"]),
        ("mpii", "a.mat", b"", ["MATLAB"]),
        ("mpii", "a.json", b"{}", ["{}", "list"]),
        ("crowdpose", "a.json", b"[" * 100_000, ["JSON", "recursion"]),
        ("crowdpose", "a.json", b"{}", ["no 'images'"]),
        ("label-studio", "a.json", b'[{"image": "a.png"}]', ["'annotations'", "JSON-MIN"]),
        ("label-studio", "a.json", b"[]", ["lists no persons"]),
        ("label-studio", "a.xml", b"", ["0 files", ".json"]),
        ("cvat", "empty", None, ["0 files", ".xml"]),
        ("yolo-pose", "empty", None, ["0 YAML files"]),
        ("yolo-pose", "absent", None, ["does not exist"]),
    ],
)
def test_files_of_another_kind(rejected, tmp_path, sound, form, name, content, facts):
    (tmp_path / "empty").mkdir()
    if content is not None:
        (tmp_path / name).write_bytes(content)
    rejected(form, tmp_path / name, sound(images=1, persons=1).folder, name, *facts)


def test_names_that_lead_out_are_skipped(converted, sound):
    data = sound()
    data.images[0]["file_name"] = "../images/1.png"
    content, report = converted("crowdpose", data.write(), data.folder)
    assert "skipped: 20 persons of images whose names lead out of the image folder" in report
    assert len(content["images"]) == 5


OPTIONS = {"skeleton": "s.json", "category": "a", "split": "train", "box-label": ("person",)}


@pytest.mark.parametrize(
    ("form", "option"), [(form, one) for form in FORMATS for one in OPTIONS if one not in FORMATS[form].options]
)
def test_options_that_do_not_apply_are_rejected(rejected, sound, form, option):
    data = sound(images=1, persons=1)
    name = "box_labels" if option == "box-label" else option
    rejected(form, data.write(), data.folder, f"--{option}", form, "leave it out", **{name: OPTIONS[option]})


INVALID = [None, 1, -1, 10**400, 1.5, "x", "\ud800", [], [1], {}, {"a": 1}, True, [[[]]]]


def corrupted_copies(content, value):
    """Copies of nested containers, each with another place replaced; of long lists only the ends."""
    keys = list(content) if isinstance(content, dict) else range(len(content))
    for key in keys if len(keys) <= 8 else [keys[0], keys[-1]]:
        copy = json.loads(json.dumps(content))
        copy[key] = value
        yield copy
        if isinstance(content[key], (dict, list)) and content[key]:
            for inner in corrupted_copies(content[key], value):
                copy = json.loads(json.dumps(content))
                copy[key] = inner
                yield copy


@pytest.mark.parametrize("form", ["crowdpose", "label-studio", "mpii"])
@pytest.mark.parametrize("value", INVALID, ids=[str(n) for n in range(len(INVALID))])
def test_invalid_values_in_every_place_is_rejected_or_skipped(convert_corrupted, sound, tmp_path, form, value):
    data = sound(images=1, persons=1)
    data.people[0]["keypoints"] = data.people[0]["keypoints"][:9]
    data.category.update(keypoints=["a", "b", "c"], skeleton=[[1, 2]])
    task = {"id": 1, "data": {"image": "http://h/1.png"}, "annotations": [{"result": [key_point()]}]}
    person = {"image": "1.png", "center": [5.0, 5.0], "scale": 1.0, "joints": [[5.0, 5.0]] * 16, "joints_vis": [1] * 16}
    content = {"crowdpose": data.content, "label-studio": [task], "mpii": [person]}[form]
    kept = []
    source = tmp_path / "bad.json"
    for bad in corrupted_copies(content, value):
        source.write_text(json.dumps(bad))
        kept.append(convert_corrupted(form, source, data.folder))
    assert len(kept) > 10
    assert not all(kept)  # in some places nothing is left to convert
