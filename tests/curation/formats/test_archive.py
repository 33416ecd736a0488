"""Archives that climb out, unpack to too much or are damaged."""

from __future__ import annotations

import json
import stat
import tempfile
import zipfile

import numpy as np
import pytest
from annotated import YOLO_SETTINGS

from distilpose.curation.formats import archive, convert_set
from distilpose.errors import DistilPoseError


def archive_with(path, name, link=False):
    with zipfile.ZipFile(path, "w") as packed:
        info = zipfile.ZipInfo(name)
        info.external_attr = (stat.S_IFLNK | 0o777) << 16 if link else 0o644 << 16
        packed.writestr(info, "/etc/passwd")
    return path


@pytest.mark.parametrize(
    ("name", "link"), [("../out.json", False), ("/tmp/out.json", False), ("a/../../b.json", False), ("l.json", True)]
)
def test_archives_that_climb_out(tmp_path, sound, name, link):
    source = archive_with(tmp_path / "a.zip", name, link)
    with pytest.raises(DistilPoseError, match="leads out of its folder"):
        convert_set("crowdpose", source, sound().folder, tmp_path / "out.json")


def test_archives_that_unpack_to_too_much(tmp_path, sound, monkeypatch):
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("a.json", " " * 3_000_000)
    monkeypatch.setattr(archive, "MOST_BYTES", 2_000_000)
    with pytest.raises(DistilPoseError, match="unpacks to more than"):
        convert_set("crowdpose", tmp_path / "a.zip", sound().folder, tmp_path / "out.json")
    (tmp_path / "b.zip").write_bytes(b"PK no zip")
    with pytest.raises(DistilPoseError, match="cannot be unpacked"):
        convert_set("crowdpose", tmp_path / "b.zip", sound(seed=1).folder, tmp_path / "out.json")


def test_damaged_archives_are_told(converted, sound, tmp_path):
    data = sound(images=1)
    place = tmp_path / "set.zip"
    with zipfile.ZipFile(place, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("data.yaml", YOLO_SETTINGS + "# " + "x y z " * 1000)
    content = bytearray(place.read_bytes())
    content[45:60] = bytes(15)
    place.write_bytes(content)
    with pytest.raises(DistilPoseError):
        converted("yolo-pose", place, data.folder)


@pytest.mark.parametrize("packing", [zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2])
def test_damage_of_each_packing(sound, tmp_path, packing):
    data = sound(images=1)
    draw = np.random.default_rng(0)
    text = json.dumps(draw.random(5000).tolist())
    for place in range(1, 12):
        source = tmp_path / f"{place}.zip"
        with zipfile.ZipFile(source, "w", packing) as packed:
            packed.writestr("a.json", text)
        content = bytearray(source.read_bytes())
        start = 40 + place * 500
        content[start : start + 40] = draw.bytes(40)
        source.write_bytes(content)
        with pytest.raises(DistilPoseError):
            convert_set("crowdpose", source, data.folder, tmp_path / "out.json")


@pytest.mark.parametrize(
    ("form", "name", "content"),
    [
        ("cvat", "annotations.xml", "no xml"),
        ("label-studio", "export.json", "no json"),
        ("crowdpose", "export.json", "{}"),
        ("mpii", "export.json", "{}"),
        ("lsp", "joints.mat", "no matlab"),
        ("yolo-pose", "data.yaml", "- a"),
        ("cvat", "a.json", "{}"),
    ],
)
def test_errors_name_the_zip_that_was_given(sound, tmp_path, form, name, content):
    source = tmp_path / "set.zip"
    with zipfile.ZipFile(source, "w") as packed:
        packed.writestr(name, content)
    with pytest.raises(DistilPoseError) as caught:
        convert_set(form, source, sound(images=1).folder, tmp_path / "out.json")
    assert str(source) in str(caught.value)
    assert f"{tempfile.gettempdir()}/tmp" not in str(caught.value)
