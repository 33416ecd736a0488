from __future__ import annotations

import gzip
import json
import os
import stat
from importlib.util import find_spec

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distilpose.curation import parsing
from distilpose.curation.conversion.matlab import read_mat
from distilpose.data.annotations import load_annotations
from distilpose.data.images import read_image
from distilpose.errors import DistilPoseError
from distilpose.files import atomic_write, foreign_content, natural_key, remove_parts, write_json, write_text
from distilpose.inference.images import read_rgb
from distilpose.inference.onnx_detector import OnnxDetector
from distilpose.models import load_model
from distilpose.runtime import Runtime


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_file_appears_when_the_block_succeeds(tmp_path):
    path = tmp_path / "new" / "table.csv"
    with atomic_write(path) as temporary:
        temporary.write_text("a,b\n")
        assert temporary.parent == path.parent
        assert not path.exists()
    assert path.read_text() == "a,b\n"
    assert names(path.parent) == ["table.csv"]


def test_the_old_file_is_kept_if_the_block_fails(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("before")
    with pytest.raises(UnicodeEncodeError), atomic_write(path) as temporary:
        temporary.write_text("half, then \udcff")
    assert path.read_text() == "before"
    assert names(tmp_path) == ["table.csv"]


def test_the_content_is_flushed_before_the_rename(tmp_path, monkeypatch):
    calls = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda file: (calls.append(os.fstat(file).st_ino), fsync(file))[1])
    monkeypatch.setattr(os, "replace", lambda old, new: (calls.append("replace"), replace(old, new))[1])
    path = write_text("a", tmp_path / "a.txt")
    assert calls == [path.stat().st_ino, "replace", tmp_path.stat().st_ino]


def test_permissions_follow_the_umask(tmp_path):
    old = os.umask(0o027)
    try:
        write_text("a", tmp_path / "a.txt")
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "a.txt").stat().st_mode) == 0o640


def test_json_has_no_nan_or_infinity(tmp_path):
    value = {
        "best": {"val/AP": 0.5},
        "rows": (1, 2.5),
        "none": None,
        "nan": float("nan"),
        "deep": [{"inf": float("inf")}],
    }
    text = write_json(value, tmp_path / "a.json").read_text()
    expected = {"best": {"val/AP": 0.5}, "rows": [1, 2.5], "none": None, "nan": None, "deep": [{"inf": None}]}
    assert json.loads(text) == expected
    assert "NaN" not in text
    assert "Infinity" not in text
    assert len(write_json([{"id": 1}, {"id": 2}], tmp_path / "rows.json").read_text().splitlines()) == 1


def test_a_folder_below_a_file_raises_an_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DistilPoseError, match=r"file/a\.txt cannot be written .* choose a folder you may write to"):
        write_text("a", tmp_path / "file" / "a.txt")


def test_temporary_files_of_a_killed_process_are_removed(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    for name in ("metrics.csv", "checkpoints/last.ckpt"):
        path = write_text("whole", tmp_path / name)
        with atomic_write(path) as temporary:
            temporary.write_text("ha")
            path.with_name("copy").write_text("ha")
        path.with_name("copy").rename(temporary)
        path.write_text("whole")
    (tmp_path / ".hidden.part").write_text("another's")
    remove_parts(tmp_path)
    assert names(tmp_path) == [".hidden.part", "checkpoints", "metrics.csv"]
    assert names(tmp_path / "checkpoints") == ["last.ckpt"]


@given(st.lists(st.integers(0, 10**6), min_size=1, max_size=20, unique=True), st.sampled_from(["", "frame_", "a 1 "]))
def test_numbers_in_names_are_in_the_order_of_their_values(numbers, prefix):
    names = [f"{prefix}{number}.jpg" for number in numbers]
    assert sorted(names, key=natural_key) == [f"{prefix}{number}.jpg" for number in sorted(numbers)]


def test_natural_order_of_folders_and_case():
    names = ["B1/2.jpg", "a10/1.jpg", "a2/10.jpg", "a2/9.jpg", "A2/1.jpg", "a2/09.jpg", "a", "é2", "e\u030110"]
    expected = ["a", "A2/1.jpg", "a2/09.jpg", "a2/9.jpg", "a2/10.jpg", "a10/1.jpg", "B1/2.jpg", "é2", "e\u030110"]
    assert sorted(names, key=natural_key) == expected


POINTER = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 123\n".encode()
PAGE = b"\xef\xbb\xbf\n<!DOCTYPE html>\n<html><title>Sign in</title></html>"


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "it is empty"), (POINTER, "git lfs pull"), (PAGE, "it is a web page"), (b"<html></html>", "it is a web page"),
        (gzip.compress(b"[]", mtime=0), "unpack it"), (b"[]", None), (b"PK\3\4", None), (b"\xff\xd8\xff", None),
    ],
)  # fmt: skip
def test_what_a_failed_download_left(tmp_path, content, told):
    path = tmp_path / "file"
    path.write_bytes(content)
    assert told in foreign_content(path) if told else foreign_content(path) == ""
    assert foreign_content(tmp_path / "missing") == ""


@pytest.mark.parametrize("content", [b"", POINTER, PAGE, gzip.compress(b"[]", mtime=0)])
def test_every_reader_tells_what_a_failed_download_left(tmp_path, content):
    """None of them passes on the parser's own message, such as `header too large`."""
    paths = {
        suffix: tmp_path / f"file{suffix}" for suffix in (".ckpt", ".safetensors", ".json", ".mat", ".jpg", ".onnx")
    }
    for path in paths.values():
        path.write_bytes(content)
    readers = [
        lambda: load_model(paths[".ckpt"]), lambda: load_model(paths[".safetensors"]),
        lambda: load_annotations(paths[".json"]), lambda: parsing.read_json(paths[".json"]),
        lambda: read_mat(paths[".mat"], "joints"), lambda: read_image(paths[".jpg"]), lambda: read_rgb(paths[".jpg"]),
    ]  # fmt: skip
    if find_spec("onnxruntime") is not None:
        readers += [lambda: Runtime(paths[".onnx"]), lambda: OnnxDetector(paths[".onnx"])]
    for reader in readers:
        with pytest.raises(DistilPoseError, match=foreign_content(paths[".ckpt"])):
            reader()
