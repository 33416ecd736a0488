"""The recorded versions, commit, devices and digests of a run."""

from __future__ import annotations

import hashlib
import subprocess
import sys

import pytest
import torch

from distilpose.runs import provenance
from distilpose.runs.provenance import code_version, digests, environment, source_files


def git(folder, *arguments):
    who = ["-c", "user.name=someone", "-c", "user.email=someone@example.org", "-c", "init.defaultBranch=main"]
    return subprocess.run(
        ["git", *who, *arguments], cwd=folder, check=True, capture_output=True, text=True
    ).stdout.strip()


@pytest.fixture
def checkout(tmp_path):
    git(tmp_path, "init")
    (tmp_path / "code.py").write_text("one\n")
    git(tmp_path, "add", "code.py")
    git(tmp_path, "commit", "-m", "first")
    return tmp_path


def test_a_checkout_has_a_commit_and_is_dirty_once_a_tracked_file_differs(checkout):
    commit = git(checkout, "rev-parse", "HEAD")
    assert code_version(checkout) == {"commit": commit, "dirty": False}
    (checkout / "runs.txt").write_text("not tracked\n")
    assert code_version(checkout) == {"commit": commit, "dirty": False}
    (checkout / "code.py").write_text("two\n")
    assert code_version(checkout) == {"commit": commit, "dirty": True}


def test_there_is_none_without_git_without_commits_and_below_a_checkout_of_something_else(
    checkout, tmp_path, monkeypatch
):
    inside = checkout / "venv" / "site-packages"
    inside.mkdir(parents=True)
    assert code_version(inside) is None
    monkeypatch.setenv("PATH", str(inside))
    assert code_version(checkout) is None
    monkeypatch.undo()
    empty = tmp_path / "empty"
    empty.mkdir()
    git(empty, "init")
    assert code_version(empty) is None


def test_versions_and_devices(monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "version", lambda: None)  # it queries the GPUs
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: f"GPU {index}")
    monkeypatch.setattr(provenance, "PACKAGES", ("distilpose", "torch", "no-such-package"))
    content = environment()
    assert set(content["packages"]) == {"distilpose", "torch"}
    assert content["packages"]["torch"] == torch.__version__.split("+")[0]
    assert content["python"] == ".".join(map(str, sys.version_info[:3]))
    assert content["gpus"] == ["GPU 0", "GPU 1"]


def test_the_files_of_a_teacher_and_their_digests(tmp_path):
    model, start, recording = tmp_path / "teacher.ckpt", tmp_path / "start.safetensors", tmp_path / "recorded"
    model.write_bytes(b"teacher" * 1_000_000)  # larger than one part of the reader
    start.write_bytes(b"")
    recording.mkdir()
    (recording / "recording.json").write_text("{}")
    teacher = {
        "_target_": "distilpose.modules.load_teacher",
        "checkpoint": str(model),
        "precision": "16",
        "check": True,
    }
    config = {
        "weights": str(start),
        "teacher": {**teacher, "recording": str(recording), "file": None},
        "name": str(model),
    }
    files = source_files(config)
    assert files == {
        "weights": start, "teacher_checkpoint": model, "teacher_recording": recording / "recording.json"
    }  # fmt: skip
    content = digests(files)
    for role, file in files.items():
        assert content[role] == {"file": str(file), "sha256": hashlib.sha256(file.read_bytes()).hexdigest()}
    again = source_files({**config, "model": {"name": str(model), "pretrained": str(start)}})
    assert again == {**files, "model_pretrained": start}
    assert "weights" not in source_files(config, resumes=True)
    assert source_files({"model": {"pretrained": str(start)}}, resumes=True) == {}
    assert source_files({"model": {"pretrained": True}}) == {}
    assert source_files({"weights": None, "teacher": {"checkpoint": str(tmp_path / "absent")}}) == {}
