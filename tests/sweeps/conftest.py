"""Sweeps whose jobs write the files of a run without training."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

from distilpose.cli.command import command
from distilpose.errors import DistilPoseError


@command("train")
def stub_training(cfg) -> float:
    """Write a run of max_epochs epochs whose value is the seed; a negative seed raises an error."""
    folder = Path(cfg.folder)
    if cfg.seed < 0:
        raise DistilPoseError(f"seed={cfg.seed} must be at least 0.")
    rows = [f"{epoch},{10 * epoch + 10},1.0,{cfg.seed}" for epoch in range(cfg.trainer.max_epochs)]
    (folder / "config.yaml").write_text(OmegaConf.to_yaml(cfg, resolve=True))
    (folder / "metrics.csv").write_text("\n".join(["epoch,step,seconds,val/PCK", *rows, ""]))
    best = {"epoch": 0, "step": 10, "val/PCK": cfg.seed}
    (folder / "metrics.json").write_text(json.dumps({"monitor": "val/PCK", "best": best, "last": best}))
    return float(cfg.seed)


@pytest.fixture
def multirun(tmp_path, monkeypatch, capsys):
    """Run `-m` with stub trainings in tmp_path; return the exit status and standard error."""

    def call(*arguments: str) -> tuple[int, str]:
        settings = ["data=synthetic", "data.monitor=val/PCK", "logger=none", "hydra.sweep.dir=sweep"]
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["train", "-m", *settings, "trainer.max_epochs=1", *arguments])
        GlobalHydra.instance().clear()
        capsys.readouterr()
        try:
            stub_training()
        except SystemExit as stop:
            text = capsys.readouterr().err
            return (1, text + stop.code) if isinstance(stop.code, str) else (int(stop.code or 0), text)
        return 0, capsys.readouterr().err

    return call


def rows_of(folder: Path) -> dict[str, tuple[str, str]]:
    """State and value of each run in trials.md."""
    lines = (folder / "trials.md").read_text().split("\n\n")[0].splitlines()[2:]
    cells = [[cell.strip() for cell in line.strip("| ").split("|")] for line in lines]
    return {run: (state, value.strip("*")) for run, state, value, *_ in cells}


@pytest.fixture
def table(tmp_path):
    """State and value of each run of the sweep in tmp_path."""
    return lambda: rows_of(tmp_path / "sweep")
