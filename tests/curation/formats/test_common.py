"""What holds for several formats: files of another kind, names, outputs, options and rubbish."""

from __future__ import annotations

import json

import pytest

from distilpose.curation.formats import convert_set
from distilpose.errors import DistilPoseError


@pytest.mark.parametrize(
    ("form", "name", "content", "told"),
    [
        ("lsp", "joints.mat", b"no matlab", "no MATLAB file"),
        ("mpii", "a.mat", b"", "no MATLAB file"),
        ("mpii", "a.json", b"{}", "no list"),
        ("crowdpose", "a.json", b"[" * 100_000, "nested too deeply"),
        ("crowdpose", "a.json", b"{}", "no lists"),
        ("label-studio", "a.json", b'[{"image": "a.png"}]', "JSON-MIN"),
        ("label-studio", "a.json", b"[]", "no key points"),
        ("label-studio", "a.xml", b"", "must end in .json"),
    ],
)
def test_files_of_another_kind(tmp_path, sound, form, name, content, told):
    data = sound()
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DistilPoseError, match=told):
        convert_set(form, tmp_path / name, data.folder, tmp_path / "out.json")
    assert not (tmp_path / "out.json").exists()


def test_names_that_climb_out_are_left_out(tmp_path, sound):
    data = sound()
    data.images[0]["file_name"] = "../images/1.png"
    told = convert_set("crowdpose", data.write(), data.folder, tmp_path / "out.json")
    assert "left out: 20 persons of images whose names lead out of the image folder" in told
    assert len(json.loads((tmp_path / "out.json").read_text())["images"]) == 5


def test_nothing_is_overwritten(tmp_path, sound):
    data = sound()
    (tmp_path / "out.json").write_text("mine")
    with pytest.raises(DistilPoseError, match="not overwritten"):
        convert_set("crowdpose", data.write(), data.folder, tmp_path / "out.json")
    assert (tmp_path / "out.json").read_text() == "mine"


@pytest.mark.parametrize("form", ["mpii", "lsp", "crowdpose"])
def test_skeleton_is_refused_where_it_means_nothing(converted, sound, tmp_path, form):
    data = sound()
    with pytest.raises(DistilPoseError, match="--skeleton means nothing"):
        converted(form, data.write(), data.folder, skeleton=data.file)


RUBBISH = [None, 1, -1, 10**400, 1.5, "x", "\ud800", [], [1], {}, {"a": 1}, True, [[[]]]]


def spoilt(content, value):
    """Copies of nested containers with one place after the other replaced."""
    for key in content if isinstance(content, dict) else range(len(content)):
        copy = json.loads(json.dumps(content))
        copy[key] = value
        yield copy
        if isinstance(content[key], (dict, list)) and content[key]:
            for inner in spoilt(content[key], value):
                copy = json.loads(json.dumps(content))
                copy[key] = inner
                yield copy


@pytest.mark.parametrize("form", ["crowdpose", "label-studio", "mpii"])
@pytest.mark.parametrize("value", RUBBISH, ids=[str(n) for n in range(len(RUBBISH))])
def test_rubbish_in_every_place_ends_in_a_sentence_or_is_left_out(convert_rubbish, sound, tmp_path, form, value):
    data = sound(images=1, persons=1)
    data.people[0]["keypoints"] = data.people[0]["keypoints"][:9]
    data.category.update(keypoints=["a", "b", "c"], skeleton=[[1, 2]])
    size = {"original_width": 240, "original_height": 160}
    point = {"x": 25, "y": 25, "width": 1, "keypointlabels": ["a"]}
    task = {"id": 1, "data": {"image": "http://h/1.png"}, "annotations": [
        {"result": [{"id": "p", "type": "keypointlabels", "value": point, **size}]}
    ]}  # fmt: skip
    person = {"image": "1.png", "center": [5.0, 5.0], "scale": 1.0, "joints": [[5.0, 5.0]] * 16, "joints_vis": [1] * 16}
    content = {"crowdpose": data.content, "label-studio": [task], "mpii": [person]}[form]
    kept = []
    for number, bad in enumerate(spoilt(content, value)):
        source = tmp_path / f"{number}.json"
        source.write_text(json.dumps(bad))
        kept.append(convert_rubbish(form, source, data.folder))
    assert len(kept) > 10
    assert not all(kept)  # in some places nothing is left to convert
