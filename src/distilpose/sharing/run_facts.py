"""What the files of a run and of its evaluations know of the model it made, for its card."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, NamedTuple

from omegaconf import DictConfig, OmegaConf

from distilpose.errors import DistilPoseError
from distilpose.models import PoseModel
from distilpose.runs.config import flatten
from distilpose.runs.folders import CONFIG, SUMMARY, UNREADABLE

# of a run's checkpoints, whose figures its metrics.json has
MEASURED = {"checkpoints/best.ckpt": "best", "checkpoints/last.ckpt": "last"}


class About(NamedTuple):
    """What the files say, not yet fit for a page.

    Attributes:
        data: a sentence on it by whoever shares.
        config: of the run, by dotted key.
        validation: its own figures for this checkpoint, by metrics.csv's columns.
        evaluations: metrics.json of `evaluate`.
    """

    name: str
    licence: str | None
    data: str | None
    config: dict[str, Any]
    environment: dict[str, Any]
    validation: dict[str, float]
    evaluations: list[dict[str, Any]]


def read_about(model: PoseModel, run: Path | None, checkpoint: str, cfg: DictConfig) -> About:
    """Gather it from a run's folder and those of evaluations, which must be of that checkpoint."""
    config: dict[str, Any] = {}
    environment: dict[str, Any] = {}
    figures: dict[str, Any] = {}
    if run is not None:
        config = flatten(_read(run / CONFIG))
        environment = _read(run / "environment.json") if (run / "environment.json").is_file() else {}
        which = MEASURED.get(Path(os.path.relpath(checkpoint, run)).as_posix())
        if which is not None and cfg.weights_kind == "averaged" and (run / SUMMARY).is_file():
            figures = _read(run / SUMMARY).get(which) or {}
    places = [cfg.evaluations] if isinstance(cfg.evaluations, str) else list(cfg.evaluations or [])
    evaluations = [_read(Path(place) / SUMMARY if Path(place).is_dir() else Path(place)) for place in places]
    for place, found in zip(places, evaluations, strict=True):
        rows = found.get("rows")
        if not rows or not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise DistilPoseError(f"{place} holds no figures of distilpose.evaluate: give the folder it wrote.")
        source = str(found.get("source")).partition(" (")[2].removesuffix(")")
        own, told = Path(checkpoint).resolve(), Path(source)  # which may count from another folder
        if told.resolve() != own and (not source or own.parts[-len(told.parts) :] != told.parts):
            raise DistilPoseError(
                f"{place} holds figures of {source or 'no model'}, not of {checkpoint}: evaluate that one."
            )
    measured = {key.removeprefix("val/"): value for key, value in figures.items() if key.startswith("val/")}
    name = cfg.name or config.get("name") or model.name
    return About(str(name), cfg.licence, cfg.data_note, config, environment, measured, evaluations)


def _read(file: Path) -> dict[str, Any]:
    """A file of plain containers, YAML or JSON."""
    try:
        text = file.read_text()
        content: Any = json.loads(text) if file.suffix == ".json" else OmegaConf.to_container(OmegaConf.create(text))
    except UNREADABLE as error:
        raise DistilPoseError(
            f"{file} cannot be read ({' '.join(str(error).split())}): give a folder of a run."
        ) from error
    if not isinstance(content, dict):
        raise DistilPoseError(f"{file} holds no settings or figures: give a folder that a run or an evaluation wrote.")
    return content
