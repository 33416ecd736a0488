"""Runs read back from their folders, and put together where they differ by no more than their seed."""

from __future__ import annotations

import csv
import functools
import math
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

import yaml
from hydra.errors import HydraException
from hydra.utils import instantiate
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from distilpose.errors import DistilPoseError
from distilpose.paths import CONFIG_DIR

# as training writes them; its own modules are not used to read them, since those take Lightning's seconds to load
CONFIG, TABLE = "config.yaml", "metrics.csv"
# settings, or groups of them, that say where, when and how watched a run is computed, not what it computes
IGNORED = (
    "seed", "data.seed", "folder", "resume", "threads", "logger", "data.num_workers", "data.val_batch_size",
    "data.folder", "data.monitor", "trainer.default_root_dir", "trainer.accelerator",
    "trainer.log_every_n_steps", "trainer.num_sanity_val_steps", "teacher.check", "teacher.check_persons",
)  # fmt: skip
# callbacks that do not change what is trained
WATCHING = ("distilpose.callbacks.", *(f"lightning.pytorch.callbacks.{name}" for name in ("Model", "TQDM", "Rich")))
# what reading a damaged config.yaml or metrics.csv raises
UNREADABLE = (
    OSError, ValueError, TypeError, KeyError, AttributeError, OverflowError, csv.Error, yaml.YAMLError, OmegaConfBaseException,
)  # fmt: skip
# composed from the setting beside them, so that a difference is told once
COPIES = {"data.augmentation": "augmentation", "data.input_size": "model.input_size"}


@dataclass(frozen=True)
class Run:
    """One training.

    Attributes:
        folder: where it lies, as it was given.
        seed: its seed.
        planned: epochs it was meant to be trained for.
        settings: of its configuration what decides its figures, by dotted key.
        rows: metrics.csv with epochs counted from one, and with the minutes since the start.
    """

    folder: Path
    seed: int
    planned: int
    settings: dict[str, Any]
    rows: list[dict[str, float]]

    def series(self, column: str) -> dict[int, float]:
        """A column by epoch, where it was computed."""
        return {int(row["epoch"]): row[column] for row in self.rows if column in row}


@dataclass(frozen=True)
class Row:
    """Runs of one configuration, by seed, under a name that no other row has."""

    name: str
    runs: dict[int, Run]
    settings: dict[str, Any]


def collect_runs(
    folders: Iterable[str], unfinished: bool = False, ignore: Sequence[str] = ()
) -> tuple[list[Run], list[str]]:
    """Every run that can be read, and a sentence on each that cannot.

    Args:
        folders: of runs, or with runs one or two levels below.
        unfinished: whether runs that have not reached their last epoch count.
        ignore: settings that say nothing of what a run computes, beside `IGNORED`.
    """
    runs, notes, seen = [], [], set()
    for given in map(Path, folders):
        places = _runs_below(given)
        if not places:
            what = "holds no run" if given.is_dir() else "is no folder" if given.exists() else "does not exist"
            notes.append(f"{given} is left out: it {what}.")
        for place in places:
            if place.resolve() in seen:
                continue
            seen.add(place.resolve())
            try:
                runs.append(read_run(place, unfinished, ignore))
            except DistilPoseError as error:
                notes.append(str(error))
    return runs, notes


def _runs_below(folder: Path, levels: int = 2) -> list[Path]:
    """The folder itself if it is a run, else the runs up to so many levels below, ordered as people count."""
    if any((folder / name).is_file() for name in (CONFIG, TABLE)):
        return [folder]
    inside = [place for place in folder.iterdir() if place.is_dir()] if levels and folder.is_dir() else []
    inside.sort(key=lambda place: re.sub(r"\d+(\.\d+)?", lambda number: f"{float(number[0]):030.9f}", place.name))
    return [run for place in inside for run in _runs_below(place, levels - 1)]


def read_run(folder: Path, unfinished: bool = False, ignore: Sequence[str] = ()) -> Run:
    """A run's configuration and figures.

    Raises:
        DistilPoseError: why it is left out.
    """
    part = CONFIG
    try:
        content: Any = OmegaConf.to_container(OmegaConf.load(folder / CONFIG))
        config = flatten(content)
        part = TABLE
        lines = (folder / TABLE).read_text().splitlines() if (folder / TABLE).exists() else []
        table = [{name: float(value) for name, value in row.items() if value} for row in csv.DictReader(lines)]
        minutes = accumulate(row.get("seconds", math.nan) / 60 for row in table)
        rows = [{**row, "epoch": int(row["epoch"]) + 1, "minutes": next(minutes)} for row in table]
    except UNREADABLE as error:
        why = " ".join(str(error).split())
        raise DistilPoseError(f"{folder} is left out: its {part} cannot be read ({why}).") from error
    for key, kind in (("name", (str, int, float)), ("seed", int), ("trainer.max_epochs", int)):
        if not isinstance(config.get(key), kind):
            raise DistilPoseError(f"{folder} is left out: its {CONFIG} says no {key}, so it is not of a training.")
    done, planned = [row["epoch"] for row in rows], config["trainer.max_epochs"]
    if done != sorted(set(done)):
        raise DistilPoseError(f"{folder} is left out: the epochs in its {TABLE} do not ascend.")
    if not done or (done[-1] < planned and not unfinished):
        way = f" (with unfinished=true it is taken, with {done[-1]})" if done else ""
        raise DistilPoseError(f"{folder} is left out: it is unfinished, without epoch {planned} in its {TABLE}{way}.")
    untaught = [] if _has_teacher(content.get("loss")) else ["teacher"]
    return Run(folder, config["seed"], planned, _settings(config, [*IGNORED, *ignore, *untaught]), rows)


def flatten(content: Any, prefix: str = "") -> dict[str, Any]:
    """Nested settings by dotted key; lists are values."""
    if not isinstance(content, Mapping):
        return {prefix.rstrip("."): content}
    return {key: value for name, part in content.items() for key, value in flatten(part, f"{prefix}{name}.").items()}


def _below(settings: Mapping[str, Any], group: str) -> dict[str, Any]:
    """The settings of a group, by their names in it; a single setting by no name."""
    return {key[len(group) + 1 :]: value for key, value in settings.items() if f"{key}.".startswith(f"{group}.")}


def _settings(config: Mapping[str, Any], ignored: Sequence[str]) -> dict[str, Any]:
    """What of a configuration decides the figures."""
    copies = [copy for copy, source in COPIES.items() if _below(config, copy) == _below(config, source)]
    watchers = {key for key, watches in callbacks_of(config).items() if watches}
    left_out = tuple(f"{name}." for name in (*ignored, *copies, *watchers))
    kept = {key: value for key, value in config.items() if not f"{key}.".startswith(left_out)}
    if kept.get("data.root"):  # the same data may lie elsewhere on another machine
        kept["data.root"] = Path(str(kept["data.root"])).name
    return kept


def callbacks_of(config: Mapping[str, Any]) -> dict[str, bool]:
    """Each callback of flattened settings, by dotted key, and whether it only watches what is trained."""
    names = dict.fromkeys(".".join(key.split(".")[:2]) for key in config if key.startswith("callbacks."))
    return {name: str(config.get(f"{name}._target_", WATCHING[0])).startswith(WATCHING) for name in names}


def _has_teacher(loss: Any) -> bool:
    """Whether a loss compares with a teacher, asked of the loss itself as training does."""
    if not isinstance(loss, dict) or not str(loss.get("_target_")).startswith("distilpose.losses."):
        return True
    try:
        return getattr(instantiate(loss), "needs_teacher", False)
    except HydraException:  # a loss of another version of this package
        return True


def group_runs(runs: Sequence[Run]) -> tuple[list[Row], list[str]]:
    """A row a configuration, in order of appearance, and a sentence on each run that repeats another."""
    distinct: list[dict[str, Any]] = []
    for run in runs:
        if run.settings not in distinct:
            distinct.append(run.settings)
    rows, notes = [], []
    for settings, name in zip(distinct, tell_apart(distinct), strict=True):
        latest: dict[int, Run] = {}
        same = [run for run in runs if run.settings == settings]
        for run in sorted(same, key=lambda run: (run.seed, (run.folder / TABLE).stat().st_mtime)):
            if run.seed in latest:
                before = latest[run.seed].folder
                notes.append(f"{name} has seed {run.seed} twice: {run.folder} is used, being later than {before}.")
            latest[run.seed] = run
        rows.append(Row(name, latest, settings))
    return rows, notes


def tell_apart(configurations: Sequence[Mapping[str, Any]]) -> list[str]:
    """A name for each configuration: its own, followed by the values in which it differs from others of that name."""
    told = []
    for own in configurations:
        alike = [other for other in configurations if other["name"] == own["name"]]
        keys = dict.fromkeys(key for other in alike for key in other)
        has = {key: [other[key] for other in alike if key in other] for key in keys}
        # what others lack comes with something that differs, a loss's weights with the loss; or else with a version
        varied = [key for key in keys if any(value != has[key][0] for value in has[key])]
        if len({str(_pieces(other, alike, varied)) for other in alike}) < len(alike):
            varied += [key for key in keys if len(has[key]) < len(alike)]
        told.append(", ".join([str(own["name"]), *_pieces(own, alike, varied)]))
    return told


def _pieces(own: Mapping[str, Any], alike: Sequence[Mapping[str, Any]], varied: Sequence[str]) -> list[str]:
    """The values in which a configuration differs; where several of a group do, the group's file if there is one."""
    pieces = []
    for group in dict.fromkeys(key.partition(".")[0] for key in varied):
        keys = [key for key in varied if key.partition(".")[0] == group]
        if len(keys) > 1 and all(_option(other, group) for other in alike):
            pieces.append(f"{group}={_option(own, group)}")
        else:
            words = {key: tell_values([other.get(key) for other in alike]) for key in keys if key in own}
            pieces += [f"{key.removesuffix('._target_')}={told[alike.index(own)]}" for key, told in words.items()]
    return pieces


def _option(settings: Mapping[str, Any], group: str) -> str | None:
    """The file of `conf/<group>/` that says just these settings."""
    names = sorted(file.stem for file in (CONFIG_DIR / group).glob("*.yaml"))
    return next((name for name in names if _read_option(group, name) == _below(settings, group)), None)


@functools.cache
def _read_option(group: str, name: str) -> dict[str, Any]:
    """The settings of a file and, by Hydra's rule, of those it starts from."""
    own = flatten(OmegaConf.to_container(OmegaConf.load(CONFIG_DIR / group / f"{name}.yaml")))
    # not those that override another group
    starts = [start for start in own.pop("defaults", []) if isinstance(start, str) and start != "_self_"]
    return {key: value for start in starts for key, value in _read_option(group, start).items()} | own


def tell_values(values: Sequence[Any]) -> list[str]:
    """Values as words; of paths only the part in which they differ, of classes the name."""
    paths = [Path(value).parts for value in values if isinstance(value, str) and "/" in value]
    first, last = (len(os.path.commonprefix([path[::step] for path in paths])) for step in (1, -1))  # noqa: RUF071

    def word(value: Any) -> str:
        if not isinstance(value, str):
            return {"None": "null", "True": "true", "False": "false"}.get(str(value), str(value))
        parts = Path(value).parts
        if "/" in value:
            return "/".join(parts[first : len(parts) - last]) or value
        return value.rpartition(".")[2] if value.startswith(("distilpose.", "torch.")) else value

    return [word(value) for value in values]
