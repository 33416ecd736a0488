"""Run folders written by hand, so that every value of a report can be computed beside it."""

from __future__ import annotations

import copy
import csv
import functools
from pathlib import Path
from typing import Any

import yaml
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf

from distilpose.cli.paths import CONFIG_DIR

RECIPE = ("experiment=demo_student", "seed=0", "folder=somewhere", "name=distilpose", "teacher.checkpoint=teacher.ckpt")
# settings of a student without a teacher
ALONE = {f"loss.{term}": 0.0 for term in ("visual_token", "keypoint_token", "confidence", "simulated_heatmap")}


@functools.cache
def composed(name: str, *overrides: str) -> DictConfig:
    """A command's configuration."""
    with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        return compose(name, list(overrides))


@functools.cache
def _recipe() -> dict[str, Any]:
    return OmegaConf.to_container(composed("train", *RECIPE), resolve=True)


def recipe() -> dict[str, Any]:
    """A whole configuration, as training writes it."""
    return copy.deepcopy(_recipe())


def write_run(
    place: Path, seed=0, values=(0.1, None, 0.3), name="distilpose", planned=None, metric="val/PCK", settings=None
) -> Path:
    """Write a run's config.yaml and metrics.csv: a value of the metric per epoch (None: not validated), 30 seconds each."""
    config = recipe()
    changes = {"trainer.max_epochs": planned or len(values), "data.seed": seed, "folder": str(place)}
    for key, value in {**changes, **(settings or {})}.items():
        *groups, last = key.split(".")
        part = config
        for group in groups:
            part = part.setdefault(group, {})
        part[last] = value
    place.mkdir(parents=True)
    (place / "config.yaml").write_text(yaml.safe_dump({**config, "name": name, "seed": seed}))
    with open(place / "metrics.csv", "w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["epoch", "step", "seconds", "train/total", metric])
        for epoch, value in enumerate(values):
            table.writerow([epoch, 10 * epoch, 30.0, 1 / (1 + epoch), "" if value is None else value])
    return place


def cells(text: str, name: str) -> dict[str, str]:
    """The cells of a row of a Markdown table, by column."""
    lines = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in text.splitlines() if line[:1] == "|"]
    rows = [line for line in lines[2:] if line[0] == name]
    assert len(rows) == 1, (name, text)
    return dict(zip(lines[0], rows[0], strict=True))
