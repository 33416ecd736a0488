"""Rows of a report: runs that differ by no more than their seed, under a name that tells them from the others."""

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
    """Runs of one configuration, by seed, under a name that no other row has."""

    name: str
    runs: dict[int, Run]
    settings: dict[str, Any]


def group_runs(runs: Sequence[Run], ignore: Sequence[str] = (), metric: str = "epoch") -> tuple[list[Row], list[str]]:
    """A row a configuration, in order of appearance, and a sentence on what was not used.

    Args:
        runs: of any configurations and seeds.
        ignore: settings, or groups of them, that runs of a row may differ in.
        metric: column of the table by whose last epoch a run counts, where a seed is there twice.
    """
    notes = [
        f"ignore=[{key}] changes nothing: it is no setting that tells runs apart (their config.yaml has them)."
        for key in ignore
        if runs and not any(below(run.settings, key) for run in runs)
    ]
    ignored = tuple(f"{key}." for key in ignore)
    kept = [{key: value for key, value in run.settings.items() if not f"{key}.".startswith(ignored)} for run in runs]
    distinct = [settings for index, settings in enumerate(kept) if settings not in kept[:index]]
    rows = []
    for settings, name in zip(distinct, tell_apart(distinct), strict=True):
        latest: dict[int, Run] = {}
        same = [run for run, own in zip(runs, kept, strict=True) if own == settings]
        # of two runs of a seed the one that came further, and of two that came as far the later
        for run in sorted(same, key=lambda run: (run.seed, _reached(run, metric), _written(run))):
            if run.seed in latest:
                before = latest[run.seed]
                why = "having come further" if _reached(run, metric) > _reached(before, metric) else "being later"
                notes.append(f"{name} has seed {run.seed} twice: {run.folder} is used, {why} than {before.folder}.")
            latest[run.seed] = run
        rows.append(Row(name, latest, settings))
    return rows, notes


def _reached(run: Run, metric: str) -> int:
    """The last epoch of a run that has the metric."""
    return max(run.series(metric), default=0)


def _written(run: Run) -> float:
    """When a run's table was last written."""
    return (run.folder / TABLE).stat().st_mtime


def tell_apart(configurations: Sequence[Mapping[str, Any]]) -> list[str]:
    """A name for each configuration: its own, followed by the values in which it differs from others of that name."""
    told = []
    for own in configurations:
        alike = [other for other in configurations if other.get("name") == own.get("name")]
        keys = dict.fromkeys(key for other in alike for key in other)
        has = {key: [other[key] for other in alike if key in other] for key in keys}
        # what others lack comes with something that differs, a loss's weights with the loss; or else with a version
        varied = [key for key in keys if any(value != has[key][0] for value in has[key])]
        if len({str(_pieces(other, alike, varied)) for other in alike}) < len(alike):
            varied += [key for key in keys if len(has[key]) < len(alike)]
        told.append(", ".join([str(own.get("name", "runs")), *_pieces(own, alike, varied)]))
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
    return next((name for name in names if _read_option(group, name) == below(settings, group)), None)


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
