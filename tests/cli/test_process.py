"""Python's collector pauses while a command's libraries load, and no longer."""

from __future__ import annotations

import contextlib
import gc
import importlib
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest
from hydra.core.global_hydra import GlobalHydra

import distilpose
from distilpose.cli import process
from distilpose.cli.process import pause_collector, resume_collector

COMMANDS = [
    name
    for _, name, package in pkgutil.iter_modules(distilpose.__path__)
    if not package and '__name__ == "__main__"' in (Path(distilpose.__path__[0]) / f"{name}.py").read_text()
]


@pytest.fixture(autouse=True)
def collecting():
    yield
    gc.unfreeze()
    gc.enable()


@pytest.mark.parametrize(
    ("argv", "before", "paused"),
    [
        (["-m", "model=student_s"], ["python", "-u", "-m", "distilpose.train"], True),
        (["-m"], ["python", "-m", "distilpose.train"], True),
        (["-m", "distilpose.train"], ["python", "-m", "theirs.job"], False),  # which imports this package
        (["-m"], ["python", "-m", "theirs.job"], False),
        (["-c", "x"], ["python", "-c"], False),
        (["/place/of/a/program.py"], ["python", "/place/of/a/program.py"], False),
    ],
)
def test_only_a_command_pauses_it(monkeypatch, argv, before, paused):
    monkeypatch.setattr(sys, "argv", argv)
    monkeypatch.setattr(sys, "orig_argv", [*before, *argv[1:]])
    pause_collector()
    assert gc.isenabled() is not paused


@pytest.mark.parametrize(
    ("words", "refused"),
    [
        (["-m", "distilpose.train"], True),
        (["-m", "distilpose.runtime"], False),
        (["-m", "theirs.job"], False),
        (["-c", "import distilpose"], False),
    ],
)
def test_without_torch_a_command_says_what_it_needs(monkeypatch, words, refused):
    monkeypatch.setattr(process, "find_spec", lambda name: None)
    monkeypatch.setattr(sys, "argv", words[:1])
    monkeypatch.setattr(sys, "orig_argv", ["python", *words])
    expected = pytest.raises(SystemExit, match=r"error: distilpose\.train needs PyTorch .*: pip install distilpose")
    with expected if refused else contextlib.nullcontext():
        process.refuse_without_torch()


def test_what_there_is_at_the_start_is_passed_over_once():
    gc.disable()
    resume_collector()
    assert gc.isenabled()
    frozen = gc.get_freeze_count()
    assert frozen > 0
    kept = [[] for _ in range(1000)]
    resume_collector()
    assert gc.get_freeze_count() == frozen
    del kept


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_starts_it_again(name, monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    module = importlib.import_module(f"distilpose.{name}")
    monkeypatch.setattr(sys, "argv", [name, "--help"])
    GlobalHydra.instance().clear()
    gc.disable()
    with contextlib.suppress(SystemExit):
        module.main()
    assert gc.isenabled()
    assert capsys.readouterr().out


def test_python_says_so_while_it_looks_for_the_module(tmp_path):
    """What it says, and when, is Python's own affair: a real process shows it, and that it ends without complaint."""
    (tmp_path / "sitecustomize.py").write_text(
        "import gc\nfreeze = gc.freeze\ndef tell():\n    freeze()\n    print('frozen', gc.get_freeze_count() > 10_000)\n"
        "gc.freeze = tell\n"
    )
    code = "import distilpose, gc; print('collecting', gc.isenabled())"
    for words, told in ((["-m", "distilpose.train", "--help"], "frozen True"), (["-c", code], "collecting True")):
        done = subprocess.run(
            [sys.executable, *words],
            env={"PYTHONPATH": f"{tmp_path}:{Path(distilpose.__path__[0]).parent}"},
            capture_output=True,
            text=True,
            check=True,
        )
        assert told in done.stdout
        assert done.stderr == ""
