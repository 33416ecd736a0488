from __future__ import annotations

import contextlib
import os
import resource

import pytest

from distilpose.data.annotations import read_json
from distilpose.errors import TOO_MANY_FILES, DistilPoseError, first_line
from distilpose.exporting.onnx_file import read_file
from distilpose.files import write_text
from distilpose.inference.images import read_rgb
from distilpose.models import load_model


def test_the_error_is_a_plain_value_error():
    assert DistilPoseError.__bases__ == (ValueError,)


def test_the_first_line_of_a_librarys_message():
    assert first_line(ValueError("rejected\nand how to do it unsafely")) == "rejected"
    assert first_line(OSError()) == "OSError"


@pytest.fixture
def no_more_files():
    """Sets the limit of open files to none, as after a leak; call it when everything is imported."""
    limits, held = resource.getrlimit(resource.RLIMIT_NOFILE), []

    def use_up():
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, limits[1]))
        with contextlib.suppress(OSError):
            while True:
                held.append(os.dup(0))

    yield use_up
    for descriptor in held:
        os.close(descriptor)
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)


@pytest.mark.parametrize("use", ["text", "checkpoint", "safetensors", "json", "image", "onnx"])
def test_too_many_open_files_are_not_told_as_a_mistake_about_the_file(use, tmp_path, no_more_files):
    ways = {
        "text": lambda: write_text("text", tmp_path / "a.txt"),
        "checkpoint": lambda: load_model(tmp_path / "a.ckpt"),
        "safetensors": lambda: load_model(tmp_path / "a.safetensors"),
        "json": lambda: read_json(tmp_path / "a.json", "Annotation file", "give another"),
        "image": lambda: read_rgb(tmp_path / "a.png"),
        "onnx": lambda: read_file(tmp_path / "a.onnx"),
    }
    for name in ("a.ckpt", "a.safetensors", "a.json", "a.png", "a.onnx"):
        (tmp_path / name).write_bytes(b"{}")
    with contextlib.suppress(DistilPoseError):
        ways[use]()  # imports what it needs
    no_more_files()
    with pytest.raises(OSError, match="Too many open files") as error:
        ways[use]()
    assert error.value.errno in TOO_MANY_FILES


def test_weights_that_may_not_be_opened_are_not_told_as_damaged(tmp_path):
    (tmp_path / "folder.safetensors").mkdir()
    with pytest.raises(DistilPoseError, match=r"folder\.safetensors'? (cannot be opened|is)") as error:
        load_model(tmp_path / "folder.safetensors")
    assert "damaged" not in str(error.value)
