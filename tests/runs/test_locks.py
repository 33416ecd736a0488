"""A lock between processes; it is released however its holder ends."""

from __future__ import annotations

import errno
import fcntl
import subprocess
import sys
import time
from pathlib import Path

import pytest

from distilpose.errors import DistilPoseError
from distilpose.runs.locks import held

HOLDER = """
import sys, time
from pathlib import Path
from distilpose.runs.locks import held
with held(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(float(sys.argv[2]))
"""


def hold(file, seconds):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(file), str(seconds)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "held\n"
    return process


@pytest.mark.slow
def test_a_second_process_fails_or_waits(tmp_path, caplog):
    file = tmp_path / "folder" / "run.lock"
    process = hold(file, 4)
    began = time.monotonic()
    with pytest.raises(DistilPoseError, match=str(file.parent)), held(file, wait=0.2):
        pass
    with caplog.at_level("INFO"), held(file):
        assert time.monotonic() - began > 1
        assert str(file.parent) in caplog.text
    assert process.wait(10) == 0
    assert not file.exists()


@pytest.mark.slow
def test_the_lock_of_a_killed_process_is_free(tmp_path):
    file = tmp_path / "run.lock"
    process = hold(file, 100)
    process.kill()
    process.wait()
    assert file.exists()
    with held(file, wait=0):
        pass
    assert not file.exists()


def test_a_lock_is_held_once_and_leaves_no_file(tmp_path):
    file = tmp_path / "folder" / "run.lock"
    for _ in range(2):
        with held(file, wait=0):
            with pytest.raises(DistilPoseError, match="Another process"), held(file, wait=0):
                pass
            assert file.exists()
        assert not file.exists()


def test_a_disk_without_locks_is_used_all_the_same(tmp_path, monkeypatch):
    def unsupported(*arguments):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", unsupported)
    with held(tmp_path / "run.lock", wait=0):
        pass


def test_the_error_inside_is_reported_even_where_the_disk_has_gone(tmp_path, monkeypatch):
    def gone(path, missing_ok=False):
        raise OSError(errno.EROFS, "Read-only file system", str(path))

    with pytest.raises(DistilPoseError, match="inside"), held(tmp_path / "run.lock"):  # noqa: PT012
        monkeypatch.setattr(Path, "unlink", gone)
        raise DistilPoseError("inside")
