"""A lock between processes, let go of however its holder ends."""

from __future__ import annotations

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


def test_another_is_refused_or_waited_for(tmp_path, capsys):
    file = tmp_path / "folder" / "run.lock"
    process = hold(file, 4)
    began = time.monotonic()
    with pytest.raises(DistilPoseError, match="Another process is at work in"), held(file, wait=0.2):
        pass
    with held(file) as waited:
        assert waited
        assert time.monotonic() - began > 1
        assert "waits for its end" in capsys.readouterr().err
    assert process.wait(10) == 0
    assert not file.exists()
    with held(file) as waited:
        assert not waited


def test_a_killed_holder_holds_no_more(tmp_path):
    file = tmp_path / "run.lock"
    process = hold(file, 100)
    process.kill()
    process.wait()
    assert file.exists()
    with held(file, wait=1) as waited:
        assert not waited
    assert not file.exists()


def test_what_went_wrong_inside_is_told_even_where_the_disk_has_gone(tmp_path, monkeypatch):
    def gone(path):
        raise OSError(30, "Read-only file system", str(path))

    with pytest.raises(DistilPoseError, match="inside"), held(tmp_path / "run.lock"):  # noqa: PT012
        monkeypatch.setattr(Path, "unlink", gone)
        raise DistilPoseError("inside")
