"""Reads runs back from their folders: their settings, and their figures after every epoch.

The modules that write these files are not used here, as they import Lightning, which takes seconds.
"""

from __future__ import annotations

import csv
import inspect
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from hydra.errors import HydraException
from hydra.utils import get_class, instantiate
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from distilpose.errors import DistilPoseError
from distilpose.runs.config import NOT_COMPARED, deciding_settings, flatten

CONFIG, TABLE, SUMMARY = "config.yaml", "metrics.csv", "metrics.json"
# what reading a damaged config.yaml or metrics.csv raises
UNREADABLE = (
    OSError, ValueError, TypeError, KeyError, AttributeError, OverflowError, csv.Error, yaml.YAMLError, OmegaConfBaseException,
)  # fmt: skip
# settings that the config.yaml of a training has: what each is, in words and as a check
NEEDED = (
    ("name", "name", lambda value: isinstance(value, (str, int, float))),
    ("seed", "whole number", lambda value: type(value) is int),
    ("trainer.max_epochs", "number of epochs", lambda value: type(value) is int and value > 0),
)


@dataclass(frozen=True)
class Run:
    """One training.

    Attributes:
        folder: of the run, as it was given.
        seed: of the run.
        planned: epochs that it was started for.
        settings: those that decide its figures, by dotted key.
        rows: of metrics.csv, with epochs counted from one, and with the minutes since the start.
    """

    folder: Path
    seed: int
    planned: int
    settings: dict[str, Any]
    rows: list[dict[str, float]]

    def series(self, column: str) -> dict[int, float]:
        """A column by epoch, where it was computed."""
        return {int(row["epoch"]): row[column] for row in self.rows if column in row}


def collect_runs(folders: Iterable[str], unfinished: bool = False) -> tuple[list[Run], list[str]]:
    """Every run that can be read, and for each that cannot a sentence that says why.

    Args:
        folders: of runs, or with runs one or two levels below.
        unfinished: whether runs that have not reached their last epoch count.
    """
    runs, notes, seen = [], [], set()
    for given in map(Path, folders):
        try:
            places = _runs_below(given)
        except OSError as error:
            notes.append(f"{given} is left out: {error.filename or given} cannot be read ({error.strerror}).")
            continue
        if not places:
            what = "holds no run" if given.is_dir() else "is no folder" if given.exists() else "does not exist"
            notes.append(f"{given} is left out: it {what}.")
        elif given not in places:  # a job of a sweep that failed at its start leaves its folder empty
            empty = [place for place in given.iterdir() if place.is_dir() and not any(place.iterdir())]
            notes += [f"{place} is left out: it is empty." for place in sorted(empty)]
        for place in places:
            if place.resolve() in seen:
                continue
            seen.add(place.resolve())
            try:
                runs.append(read_run(place, unfinished))
            except DistilPoseError as error:
                notes.append(str(error))
    return runs, notes


def _runs_below(folder: Path, levels: int = 2) -> list[Path]:
    """The folder itself if it is a run, else the runs up to so many levels below, with numbers in their order."""
    if any((folder / name).is_file() for name in (CONFIG, TABLE)):
        return [folder]
    inside = [place for place in folder.iterdir() if place.is_dir()] if levels and folder.is_dir() else []
    inside.sort(key=lambda place: re.sub(r"\d+(\.\d+)?", lambda number: f"{float(number[0]):030.9f}", place.name))
    return [run for place in inside for run in _runs_below(place, levels - 1)]


def read_run(folder: Path, unfinished: bool = False) -> Run:
    """A run's configuration and figures.

    Raises:
        DistilPoseError: why it is left out.
    """
    file = CONFIG
    try:
        _whole_text(folder / CONFIG)
        content: Any = OmegaConf.to_container(OmegaConf.load(folder / CONFIG))
        if isinstance(content, dict) and "loss" in content:
            content["loss"] = _with_defaults(content["loss"])
        config = flatten(content)
        file = TABLE
        rows = _read_table(folder / TABLE) if (folder / TABLE).exists() else []
    except UNREADABLE as error:
        why = " ".join(str(error).split())
        raise DistilPoseError(f"{folder} is left out: its {file} cannot be read ({why}).") from error
    for key, what, fits in NEEDED:
        if config.get(key) is None:
            raise DistilPoseError(f"{folder} is left out: its {CONFIG} says no {key}, so it is not of a training.")
        if not fits(config[key]):
            raise DistilPoseError(f"{folder} is left out: its {CONFIG} says {key}: {config[key]}, which is no {what}.")
    done, planned = [row["epoch"] for row in rows], config["trainer.max_epochs"]
    if done != sorted(set(done)):
        raise DistilPoseError(f"{folder} is left out: the epochs in its {TABLE} do not ascend.")
    if not done or (done[-1] < planned and not unfinished):
        way = f" (with unfinished=true it is taken, with {done[-1]})" if done else ""
        raise DistilPoseError(f"{folder} is left out: it is unfinished, without epoch {planned} in its {TABLE}{way}.")
    ignored = NOT_COMPARED if _has_teacher(content.get("loss")) else (*NOT_COMPARED, "teacher")
    return Run(folder, config["seed"], planned, deciding_settings(config, ignored), rows)


def _whole_text(file: Path) -> str:
    """A file's text, if it is whole: training ends every line, but a copy that was stopped ends in the middle of one."""
    text = file.read_text(encoding="utf-8")
    if text and not text.endswith("\n"):
        raise ValueError("it is cut off in its last line: copy it again, or end that line if the file is whole")
    return text


def _read_table(file: Path) -> list[dict[str, float]]:
    """The rows of metrics.csv without their blanks, as `Run` holds them."""
    rows, minutes = [], 0.0
    for number, row in enumerate(csv.DictReader(_whole_text(file).splitlines()), start=1):
        if None in row or None in row.values():  # more fields than the header has, or fewer
            raise ValueError(f"it is cut off or damaged: row {number} has not as many fields as the header")
        if not row.get("epoch"):
            raise ValueError(f"row {number} has no epoch")
        known = {name: float(value) for name, value in row.items() if value}
        minutes += known.get("seconds", math.nan) / 60
        rows.append({**known, "epoch": int(known["epoch"]) + 1, "minutes": minutes})
    return rows


def _is_ours(loss: Any) -> bool:
    return isinstance(loss, dict) and str(loss.get("_target_")).startswith("distilpose.losses.")


def _with_defaults(loss: Any) -> Any:
    """A loss's settings, with defaults for those that a later version of this package has added."""
    if not _is_ours(loss):
        return loss
    try:
        parameters = inspect.signature(get_class(loss["_target_"])).parameters.values()
    except (ImportError, ValueError, HydraException):  # a loss of another version of this package
        return loss
    defaults = {one.name: one.default for one in parameters if one.default is not inspect.Parameter.empty}
    return {**defaults, **loss}


def _has_teacher(loss: Any) -> bool:
    """Whether a loss compares with a teacher, by the loss itself, as in training."""
    if not _is_ours(loss):
        return True
    try:
        return getattr(instantiate(loss), "needs_teacher", False)
    except HydraException:  # a loss of another version of this package
        return True


def best_value(metrics: Mapping[str, Any]) -> float | None:
    """The best value of the monitored metric in a run's metrics.json; None where it was never validated."""
    return (metrics["best"] or {}).get(metrics["monitor"])
