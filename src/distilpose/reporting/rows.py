"""Rows of a report: runs that differ only in their seed, and names that distinguish the rows."""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from distilpose.cli.paths import CONFIG_DIR
from distilpose.runs.config import below, flatten
from distilpose.runs.folders import TABLE, Run


@dataclass(frozen=True)
class Row:
    """Runs of one configuration by seed, with a unique name."""

    name: str
    runs: dict[int, Run]
    settings: dict[str, Any]


def group_runs(runs: Sequence[Run], ignore: Sequence[str] = (), metric: str = "epoch") -> tuple[list[Row], list[str]]:
    """One row per configuration, in order of appearance, and notes on unused runs and settings.

    Args:
        runs: of any configurations and seeds.
        ignore: settings or groups of settings in which the runs of a row may differ.
        metric: column of the table; of two runs with the same seed, the one with more epochs of it is used.
    """
    notes = [
        f"ignore=[{key}] has no effect: no run has that setting, see their config.yaml."
        for key in ignore
        if runs and not any(below(run.settings, key) for run in runs)
    ]
    ignored = tuple(f"{key}." for key in ignore)
    kept = [{key: value for key, value in run.settings.items() if not f"{key}.".startswith(ignored)} for run in runs]
    distinct = [settings for index, settings in enumerate(kept) if settings not in kept[:index]]
    rows = []
    for settings, name in zip(distinct, name_configurations(distinct), strict=True):
        latest: dict[int, Run] = {}
        same = [run for run, other in zip(runs, kept, strict=True) if other == settings]
        # of two runs with one seed the one with more epochs is used, or else the later one
        for run in sorted(same, key=lambda run: (run.seed, _reached(run, metric), _written(run))):
            if run.seed in latest:
                other = latest[run.seed]
                reason = "has more epochs" if _reached(run, metric) > _reached(other, metric) else "is later"
                notes.append(
                    f"{name} has seed {run.seed} twice: {run.folder} is used, it {reason} than {other.folder}."
                )
            latest[run.seed] = run
        rows.append(Row(name, latest, settings))
    return rows, notes


def _reached(run: Run, metric: str) -> int:
    """The last epoch of a run with the metric."""
    return max(run.series(metric), default=0)


def _written(run: Run) -> float:
    """When a run's table was last written."""
    return (run.folder / TABLE).stat().st_mtime


def name_configurations(configurations: Sequence[Mapping[str, Any]]) -> list[str]:
    """Unique names: the `name` of each configuration, and the settings in which it differs from others with that name."""
    names = []
    for settings in configurations:
        namesakes = [other for other in configurations if other.get("name") == settings.get("name")]
        keys = dict.fromkeys(key for other in namesakes for key in other)
        values = {key: [other[key] for other in namesakes if key in other] for key in keys}
        # a setting that some configurations lack usually comes with another that differs, as a loss with its weights
        varied = [key for key in keys if any(value != values[key][0] for value in values[key])]
        if len({str(_differences(other, namesakes, varied)) for other in namesakes}) < len(namesakes):
            varied += [key for key in keys if len(values[key]) < len(namesakes)]
        names.append(", ".join([str(settings.get("name", "runs")), *_differences(settings, namesakes, varied)]))
    return names


def _differences(
    settings: Mapping[str, Any], namesakes: Sequence[Mapping[str, Any]], varied: Sequence[str]
) -> list[str]:
    """Overrides that distinguish a configuration. Several settings of a group become the group's file if there is one."""
    overrides = []
    for group in dict.fromkeys(key.partition(".")[0] for key in varied):
        keys = [key for key in varied if key.partition(".")[0] == group]
        if len(keys) > 1 and all(_option(other, group) for other in namesakes):
            overrides.append(f"{group}={_option(settings, group)}")
        else:
            values = {key: format_values([other.get(key) for other in namesakes]) for key in keys if key in settings}
            position = namesakes.index(settings)
            overrides += [f"{key.removesuffix('._target_')}={texts[position]}" for key, texts in values.items()]
    return overrides


def _option(settings: Mapping[str, Any], group: str) -> str | None:
    """The file of `conf/<group>/` with exactly these settings."""
    names = sorted(file.stem for file in (CONFIG_DIR / group).glob("*.yaml"))
    return next((name for name in names if _read_option(group, name) == below(settings, group)), None)


@functools.cache
def _read_option(group: str, name: str) -> dict[str, Any]:
    """The settings of a file and of its defaults list."""
    settings = flatten(OmegaConf.to_container(OmegaConf.load(CONFIG_DIR / group / f"{name}.yaml")))
    # entries for other groups are mappings and are skipped
    bases = [base for base in settings.pop("defaults", []) if isinstance(base, str) and base != "_self_"]
    return {key: value for base in bases for key, value in _read_option(group, base).items()} | settings


def format_values(values: Sequence[Any]) -> list[str]:
    """Values as text: paths without their common parts, classes by their name."""
    paths = [Path(value).parts for value in values if isinstance(value, str) and "/" in value]
    first, last = (len(os.path.commonprefix([path[::step] for path in paths])) for step in (1, -1))  # noqa: RUF071

    def text(value: Any) -> str:
        if not isinstance(value, str):
            return {"None": "null", "True": "true", "False": "false"}.get(str(value), str(value))
        parts = Path(value).parts
        if "/" in value:
            return "/".join(parts[first : len(parts) - last]) or value
        return value.rpartition(".")[2] if value.startswith(("distilpose.", "torch.")) else value

    return [text(value) for value in values]
