"""Reads runs from their folders: settings, and metrics after every epoch.

The modules that write these files are not imported here because they import Lightning, which takes seconds.
"""

from __future__ import annotations

import csv
import inspect
import json
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
from distilpose.files import natural_key
from distilpose.runs.config import NOT_COMPARED, deciding_settings, flatten

CONFIG, TABLE, SUMMARY, ENVIRONMENT = "config.yaml", "metrics.csv", "metrics.json", "environment.json"
# errors of reading a damaged config.yaml or metrics.csv
UNREADABLE = (
    OSError, ValueError, TypeError, KeyError, AttributeError, OverflowError, csv.Error, yaml.YAMLError, OmegaConfBaseException,
)  # fmt: skip
# settings that the config.yaml of a training has: key, description, check
NEEDED = (
    ("name", "name", lambda value: isinstance(value, (str, int, float))),
    ("seed", "whole number", lambda value: type(value) is int),
    ("trainer.max_epochs", "number of epochs", lambda value: type(value) is int and value > 0),
)


@dataclass(frozen=True)
class Run:
    """One training.

    Attributes:
        folder: folder of the run, as given by the caller.
        seed: seed of the run.
        planned: number of epochs in its configuration.
        settings: the settings that change its results, by dotted key.
        rows: rows of metrics.csv, with epochs counted from one and with the minutes since the start.
        val_digest: SHA-256 of the validation annotations at the first start; None if its environment.json does not state it.
    """

    folder: Path
    seed: int
    planned: int
    settings: dict[str, Any]
    rows: list[dict[str, float]]
    val_digest: str | None = None

    def series(self, column: str) -> dict[int, float]:
        """A column by epoch, without the epochs that have no value."""
        return {int(row["epoch"]): row[column] for row in self.rows if column in row}


def collect_runs(folders: Iterable[str], unfinished: bool = False) -> tuple[list[Run], list[str]]:
    """All readable runs, and one sentence with the reason for each folder that is left out.

    Args:
        folders: folders of runs, or folders with runs one or two levels below.
        unfinished: whether runs are included that have not reached their last epoch.
    """
    runs, notes, seen = [], [], set()
    for given in map(Path, folders):
        try:
            below = _runs_below(given)
        except OSError as error:
            notes.append(f"{given} is left out: {error.filename or given} cannot be read ({error.strerror}).")
            continue
        if not below:
            what = "holds no run" if given.is_dir() else "is not a folder" if given.exists() else "does not exist"
            notes.append(f"{given} is left out: it {what}.")
        elif given not in below:  # the folder of a sweep's job that failed at its start is empty
            empty = [folder for folder in given.iterdir() if folder.is_dir() and not any(folder.iterdir())]
            notes += [f"{folder} is left out: it is empty." for folder in sorted(empty, key=natural_key)]
        for folder in below:
            if folder.resolve() in seen:
                continue
            seen.add(folder.resolve())
            try:
                runs.append(read_run(folder, unfinished))
            except DistilPoseError as error:
                notes.append(str(error))
    return runs, notes


def _runs_below(folder: Path, levels: int = 2) -> list[Path]:
    """The folder itself if it is a run, else the runs up to `levels` below it, sorted by the numbers in their names."""
    if any((folder / name).is_file() for name in (CONFIG, TABLE)):
        return [folder]
    inside = [path for path in folder.iterdir() if path.is_dir()] if levels and folder.is_dir() else []
    inside.sort(key=lambda path: re.sub(r"\d+(\.\d+)?", lambda number: f"{float(number[0]):030.9f}", path.name))
    return [run for path in inside for run in _runs_below(path, levels - 1)]


def read_run(folder: Path, unfinished: bool = False) -> Run:
    """Read a run's configuration and metrics.

    Raises:
        DistilPoseError: the run is damaged or unfinished.
    """
    file = CONFIG
    try:
        _read_complete_text(folder / CONFIG)
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
        if not fits(config.get(key)):
            raise DistilPoseError(
                f"{folder} is left out: {key}: {config.get(key)} in its {CONFIG} is not a {what}, so it is not a training."
            )
    done, planned = int(rows[-1]["epoch"]) if rows else 0, config["trainer.max_epochs"]
    if not done or (done < planned and not unfinished):
        way = f" (unfinished=true includes it, with {done} epochs)" if done else ""
        raise DistilPoseError(f"{folder} is left out: it is unfinished, without epoch {planned} in its {TABLE}{way}.")
    ignored = NOT_COMPARED if _has_teacher(content.get("loss")) else (*NOT_COMPARED, "teacher")
    return Run(folder, config["seed"], planned, deciding_settings(config, ignored), rows, _val_digest(folder))


def _val_digest(folder: Path) -> str | None:
    try:
        return str(json.loads((folder / ENVIRONMENT).read_text())["started"]["digests"]["val_annotations"]["sha256"])
    except UNREADABLE:
        return None


def _read_complete_text(file: Path) -> str:
    """Text of a file. Raises ValueError if its last line has no newline, as after an interrupted copy."""
    text = file.read_text(encoding="utf-8")
    if text and not text.endswith("\n"):
        raise ValueError("it is cut off in its last line: copy it again, or end that line if the file is complete")
    return text


def _read_table(file: Path) -> list[dict[str, float]]:
    """Rows of metrics.csv for `Run.rows`, without empty cells."""
    rows: list[dict[str, float]] = []
    minutes = 0.0
    for number, row in enumerate(csv.DictReader(_read_complete_text(file).splitlines()), start=1):
        if None in row or None in row.values():  # more or fewer fields than the header
            raise ValueError(f"it is cut off or damaged: row {number} has not as many fields as the header")
        values = {name: float(value) for name, value in row.items() if value}
        minutes += values.get("seconds", math.nan) / 60
        epoch = int(values.get("epoch", -1)) + 1  # 0 if it is missing
        if epoch <= (rows[-1]["epoch"] if rows else 0):
            raise ValueError(f"row {number} has no epoch, or the epochs do not ascend")
        rows.append({**values, "epoch": epoch, "minutes": minutes})
    return rows


def _is_from_this_package(loss: Any) -> bool:
    return isinstance(loss, dict) and str(loss.get("_target_")).startswith("distilpose.losses.")


def _with_defaults(loss: Any) -> Any:
    """Settings of a loss, with defaults for those that are new in this version of the package."""
    if not _is_from_this_package(loss):
        return loss
    try:
        parameters = inspect.signature(get_class(loss["_target_"])).parameters.values()
    except (ImportError, ValueError, HydraException):  # the loss is from another version of this package
        return loss
    defaults = {one.name: one.default for one in parameters if one.default is not inspect.Parameter.empty}
    return {**defaults, **loss}


def _has_teacher(loss: Any) -> bool:
    """Whether a loss needs a teacher; True if that is unknown."""
    if not _is_from_this_package(loss):
        return True
    try:
        return getattr(instantiate(loss), "needs_teacher", False)
    except HydraException:  # the loss is from another version of this package
        return True


def best_value(metrics: Mapping[str, Any]) -> float | None:
    """The best value of the monitored metric in a run's metrics.json; None if it never had a value."""
    from distilpose.evaluation import has_value  # here, because it imports Lightning

    value = (metrics["best"] or {}).get(metrics["monitor"])
    return value if has_value(str(metrics["monitor"]), value) else None
