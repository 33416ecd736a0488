"""Archives that lead out, unpack to too much or are damaged."""

from __future__ import annotations

import json
import stat
import tempfile
import zipfile

import numpy as np
import pytest

from distilpose.curation.conversion import archive


@pytest.fixture
def zipped(tmp_path):
    """Makes a zip of one file."""

    def make(name, content, link=False, packing=zipfile.ZIP_DEFLATED):
        info = zipfile.ZipInfo(name)
        info.external_attr = (stat.S_IFLNK | 0o777) << 16 if link else 0o644 << 16
        with zipfile.ZipFile(tmp_path / "set.zip", "w") as packed:
            packed.writestr(info, content, compress_type=packing)
        return tmp_path / "set.zip"

    return make


@pytest.mark.parametrize(
    ("name", "link"), [("../out.json", False), ("/tmp/out.json", False), ("a/../../b.json", False), ("l.json", True)]
)
def test_archives_that_lead_out(rejected, sound, zipped, name, link):
    rejected("crowdpose", zipped(name, "/etc/passwd", link), sound().folder, name, "leads out")


def test_archives_that_unpack_to_too_much(rejected, sound, zipped, monkeypatch):
    monkeypatch.setattr(archive, "MAX_BYTES", 2_000_000)
    rejected("crowdpose", zipped("a.json", " " * 3_000_000), sound().folder, "GiB of labels", "unpack it")


@pytest.mark.parametrize("packing", [zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2])
def test_damage_of_each_packing(rejected, sound, zipped, packing):
    data, draw = sound(images=1), np.random.default_rng(0)
    text = json.dumps(draw.random(5000).tolist())
    for place in range(1, 12):
        source = zipped("a.json", text, packing=packing)
        content = bytearray(source.read_bytes())
        start = 40 + place * 500
        content[start : start + 40] = draw.bytes(40)
        source.write_bytes(content)
        rejected("crowdpose", source, data.folder, str(source))


@pytest.mark.parametrize(
    ("form", "name", "content"),
    [
        ("cvat", "annotations.xml", "no xml"),
        ("label-studio", "export.json", "no json"),
        ("lsp", "joints.mat", "no matlab"),
        ("yolo-pose", "data.yaml", "- a"),
        ("cvat", "a.json", "{}"),
    ],
)
def test_errors_name_the_zip_that_was_given(rejected, sound, zipped, form, name, content):
    source = zipped(name, content)
    message = rejected(form, source, sound(images=1).folder, str(source))
    assert f"{tempfile.gettempdir()}/tmp" not in message
