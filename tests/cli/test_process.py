"""The output of a command, and imports without side effects."""

from __future__ import annotations

import importlib
import logging
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest
from hydra.core.global_hydra import GlobalHydra

import distilpose
from distilpose.cli.process import StderrHandler, log_to_stderr

COMMANDS = [
    name
    for _, name, package in pkgutil.iter_modules(distilpose.__path__)
    if not package and '__name__ == "__main__"' in (Path(distilpose.__path__[0]) / f"{name}.py").read_text()
]


@pytest.mark.parametrize(
    ("rank", "shown"), [(None, ["note", "trouble"]), ("0", ["note", "trouble"]), ("1", ["trouble"])]
)
def test_messages_are_plain_lines_on_standard_error(monkeypatch, capsys, rank, shown):
    monkeypatch.delenv("RANK", raising=False)
    if rank is not None:
        monkeypatch.setenv("LOCAL_RANK", rank)
    for _ in range(2):  # the handler is installed once
        log_to_stderr()
    log = logging.getLogger("distilpose.runs")
    log.info("note")
    log.warning("trouble")
    printed = capsys.readouterr()
    assert printed.err.splitlines() == shown
    assert printed.out == ""
    log_to_stderr()


def test_importing_the_package_has_no_side_effect():
    code = (
        "import gc, logging, sys\n"
        "import distilpose, distilpose.cli.process, distilpose.cli.resolvers, distilpose.runs\n"
        "from omegaconf import OmegaConf\n"
        "print(gc.isenabled(), logging.getLogger('distilpose').handlers, OmegaConf.has_resolver('run_directory'))\n"
        "print('torch' in sys.modules, 'hydra' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["True [] False", "False False"]
    assert done.stderr == ""


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_a_help(name, monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    module = importlib.import_module(f"distilpose.{name}")
    monkeypatch.setattr(sys, "argv", [name, "--help"])
    GlobalHydra.instance().clear()
    with pytest.raises(SystemExit) as stop:
        module.main()
    assert not stop.value.code
    assert capsys.readouterr().out
    assert not list(tmp_path.iterdir())


@pytest.fixture(autouse=True)
def one_handler():
    yield
    assert sum(isinstance(one, StderrHandler) for one in logging.getLogger("distilpose").handlers) <= 1
