"""Result files of a sweep: trials.md, trials.json for programs, best.yaml with the best settings, and a picture."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from omegaconf import OmegaConf

from distilpose.errors import DistilPoseError
from distilpose.files import atomic_write, quarantine, write_json, write_text

TABLE, ROWS, BEST, PICTURE = "trials.md", "trials.json", "best.yaml", "trials.png"
DONE, PRUNED, FAILED, INTERRUPTED, NOT_STARTED = "done", "pruned", "failed", "interrupted", "not started"
OLD_STATES = {"left off": INTERRUPTED, "not begun": NOT_STARTED}  # names in files of earlier versions
MAX_PANELS = 8


@dataclass(frozen=True)
class Trial:
    """One job of a sweep.

    Attributes:
        folder: folder of its run.
        overrides: overrides of its command line.
        state: done, pruned (stopped by the search), failed, interrupted (the same command resumes it), or not started.
        value: best value of the monitored metric so far.
        note: why it failed, or its number of finished epochs.
        command: command line that trains it again.
    """

    folder: str
    overrides: list[str]
    state: str
    value: float | None = None
    note: str = ""
    command: str = ""

    @property
    def settings(self) -> dict[str, str]:
        """The settings that its overrides set, by name."""
        pairs = (override.lstrip("+").partition("=") for override in self.overrides if "=" in override)
        return {name: value.strip("'\"") for name, _, value in pairs if name != "trial"}


def is_finite(value: float | None) -> bool:
    """Whether there is a value and it is finite."""
    return value is not None and math.isfinite(value)


def best_of(trials: Sequence[Trial]) -> Trial | None:
    """The finished trial with the highest value."""
    finished = [trial for trial in trials if trial.state == DONE and is_finite(trial.value)]
    return max(finished, key=lambda trial: trial.value or 0.0) if finished else None


def write_trials(folder: Path, trials: Sequence[Trial], monitor: str, names: Sequence[str] = ()) -> str:
    """Write the result files; return the table and the command that trains the best trial as text.

    The trials of an earlier command with the same folder stay in the table.

    Args:
        folder: folder of the sweep.
        trials: trials of this command.
        monitor: the maximised metric.
        names: settings to show even if their value is the same in all trials.
    """
    folders = {trial.folder for trial in trials}
    trials = [*(trial for trial in _read_earlier(folder, monitor) if trial.folder not in folders), *trials]
    names = list(dict.fromkeys([*names, *differing(trials)]))
    best = best_of(trials)
    text = _table(trials, names, monitor, best)
    write_json({"monitor": monitor, "trials": [asdict(trial) for trial in trials]}, folder / ROWS)
    if best is not None:
        shown = {name: getattr(best, name) for name in ("folder", "value", "overrides", "command")}
        write_text(OmegaConf.to_yaml({"monitor": monitor, **shown}), folder / BEST)
        text += f"\n\nBest: {best.folder} with {monitor} {best.value:.4f}. To train it again:\n\n    {best.command}"
    picture = draw_trials(trials, names, monitor, best)
    if picture is not None:
        with atomic_write(folder / PICTURE) as file:
            picture.savefig(file, dpi=120)
    write_text(text + "\n", folder / TABLE)
    return text


def raise_if_failed(folder: Path, trials: Sequence[Trial], advice: str) -> None:
    """Raise one error that names all failed trials.

    Raises:
        DistilPoseError: any trial failed.
    """
    failed = [trial for trial in trials if trial.state == FAILED]
    if not failed:
        return
    names = ", ".join(trial.folder for trial in failed)
    why = failed[0].note.rstrip(".") if len({trial.note for trial in failed}) == 1 else f"see {folder / TABLE}"
    raise DistilPoseError(f"{len(failed)} of {len(trials)} jobs failed, {names} ({why}): {advice}.")


def differing(trials: Sequence[Trial]) -> list[str]:
    """Names of the settings whose value is not the same for all trials."""
    names = dict.fromkeys(name for trial in trials for name in trial.settings)
    return [name for name in names if len({trial.settings.get(name) for trial in trials}) > 1]


def _read_earlier(folder: Path, monitor: str) -> list[Trial]:
    """Trials of an earlier command whose folders still exist; none if it maximised another metric."""
    if not (folder / ROWS).is_file():
        return []
    try:
        content = json.loads((folder / ROWS).read_text())
        trials = [Trial(**row) for row in content["trials"]]
        same_metric = content["monitor"] == monitor
    except (ValueError, KeyError, TypeError) as error:
        quarantine(folder / ROWS, error)
        return []
    trials = [replace(trial, state=OLD_STATES.get(trial.state, trial.state)) for trial in trials]
    return [trial for trial in trials if same_metric and Path(trial.folder).is_dir()]


def _table(trials: Sequence[Trial], names: Sequence[str], monitor: str, best: Trial | None) -> str:
    lines = [
        f"| run | state | {monitor} |" + "".join(f" {name} |" for name in names),
        "| --- " * (3 + len(names)) + "|",
    ]
    for trial in trials:
        value = f"{trial.value:.4f}" if trial.value is not None and is_finite(trial.value) else "-"
        cells = [Path(trial.folder).name, trial.state, f"**{value}**" if trial is best else value]
        lines.append("| " + " | ".join([*cells, *(_shortened(trial.settings.get(name, "-")) for name in names)]) + " |")
    notes = [f"{trial.folder} {trial.state}: {trial.note}" for trial in trials if trial.note]
    return "\n\n".join(["\n".join(lines), *notes])


def _shortened(value: str) -> str:
    try:
        return f"{float(value):.4g}" if len(value) > 8 else value
    except ValueError:
        return value.replace("|", "\\|")


def draw_trials(
    trials: Sequence[Trial], names: Sequence[str], monitor: str, best: Trial | None = None
) -> Figure | None:
    """Draw one panel for each setting: finished trials as dots, others as crosses, the best with a ring.

    Returns:
        None if no trial has a value, or there are no settings.
    """
    shown = [trial for trial in trials if trial.value is not None]
    if not shown or not names:
        return None
    names = names[:MAX_PANELS]
    figure = Figure(figsize=(1.2 + 3.2 * len(names), 3.6), layout="constrained")
    panels = figure.subplots(1, len(names), sharey=True, squeeze=False)[0]
    for axes, name in zip(panels, names, strict=True):
        _draw_panel(axes, name, shown, best)
    panels[0].set_ylabel(monitor)
    panels[-1].legend(fontsize="small")
    return figure


def _draw_panel(axes: Any, name: str, trials: Sequence[Trial], best: Trial | None) -> None:
    texts = [trial.settings.get(name, "-") for trial in trials]
    positions, numeric = _positions(texts)
    if numeric and min(positions) > 0 and max(positions) > 10 * min(positions):
        axes.set_xscale("log")
    if not numeric or len(set(positions)) <= 5:
        ticks = dict(zip(positions, texts, strict=True))
        axes.set_xticks(list(ticks), list(ticks.values()), rotation=0 if numeric else 30)
        axes.minorticks_off()
    for index, state in enumerate((DONE, PRUNED, INTERRUPTED, FAILED)):
        points = [(x, trial.value) for x, trial in zip(positions, trials, strict=True) if trial.state == state]
        if points:
            marker = "o" if state == DONE else "x"
            axes.scatter(*zip(*points, strict=True), c=f"C{index}", marker=marker, label=state)
    if best is not None:
        x = positions[trials.index(best)]
        axes.scatter([x], [best.value], s=140, facecolors="none", edgecolors="k", label="best")
    axes.set_xlabel(name)
    axes.grid(alpha=0.3)


def _positions(texts: Sequence[str]) -> tuple[list[float], bool]:
    """Position of each value on an axis, and whether all values are numbers; texts are placed in order of appearance."""
    try:
        return [float(text) for text in texts], True
    except ValueError:
        order = list(dict.fromkeys(texts))
        return [float(order.index(text)) for text in texts], False
