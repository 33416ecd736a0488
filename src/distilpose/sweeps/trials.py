"""What came of a sweep: trials.md for people, trials.json for programs, best.yaml to train the best again, a picture."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from matplotlib.figure import Figure
from omegaconf import OmegaConf

from distilpose.errors import DistilPoseError
from distilpose.files import atomic_write, quarantine, write_json, write_text

TABLE, ROWS, BEST, PICTURE = "trials.md", "trials.json", "best.yaml", "trials.png"
DONE, PRUNED, FAILED, LEFT, WAITING = "done", "pruned", "failed", "left off", "not begun"
MOST = 8  # settings drawn


@dataclass(frozen=True)
class Trial:
    """One job of a sweep.

    Attributes:
        folder: of its run.
        overrides: its command line.
        state: done, pruned (stopped by the search), failed, left off (goes on by the same command), not begun.
        value: best value of the monitored metric, as far as it came.
        note: why it failed, or how far it came.
        command: line that trains it anew.
    """

    folder: str
    overrides: list[str]
    state: str
    value: float | None = None
    note: str = ""
    command: str = ""

    @property
    def settings(self) -> dict[str, str]:
        """What its command line sets, by name."""
        pairs = (word.lstrip("+").partition("=") for word in self.overrides if "=" in word)
        return {name: value.strip("'\"") for name, _, value in pairs if name != "trial"}


def known(value: float | None) -> bool:
    """Whether there is a number."""
    return value is not None and math.isfinite(value)


def best_of(trials: Sequence[Trial]) -> Trial | None:
    """The trial that came to its end with the highest value."""
    ended = [trial for trial in trials if trial.state == DONE and known(trial.value)]
    return max(ended, key=lambda trial: trial.value or 0.0) if ended else None


def write_trials(place: Path, trials: Sequence[Trial], monitor: str, names: Sequence[str] = ()) -> str:
    """Write the files into the sweep's folder; gives the table and what to type next as text.

    Trials of an earlier command with the same folder stay in the table.

    Args:
        place: the sweep's folder.
        trials: of this command.
        monitor: the metric that was maximised.
        names: of settings that are shown though all have them alike.
    """
    folders = {trial.folder for trial in trials}
    content = [*(trial for trial in _earlier(place, monitor) if trial.folder not in folders), *trials]
    names = list(dict.fromkeys([*names, *differing(content)]))
    best = best_of(content)
    text = _table(content, names, monitor, best)
    write_json({"monitor": monitor, "trials": [asdict(trial) for trial in content]}, place / ROWS)
    if best is not None:
        told = {"folder": best.folder, "monitor": monitor, "value": best.value, "overrides": best.overrides}
        write_text(OmegaConf.to_yaml({**told, "command": best.command}), place / BEST)
        text += (
            f"\n\nThe best is {best.folder} with {monitor} {best.value:.4f}. To train it again:\n\n    {best.command}"
        )
    picture = draw_trials(content, names, monitor, best)
    if picture is not None:
        with atomic_write(place / PICTURE) as file:
            picture.savefig(file, dpi=120)
    write_text(text + "\n", place / TABLE)
    return text


def refuse_failed(place: Path, trials: Sequence[Trial], advice: str) -> None:
    """End with an error that names all that failed.

    Raises:
        DistilPoseError: where any did.
    """
    failed = [trial for trial in trials if trial.state == FAILED]
    if not failed:
        return
    folders = ", ".join(trial.folder for trial in failed)
    why = failed[0].note.rstrip(".") if len({trial.note for trial in failed}) == 1 else f"{place / TABLE} says why"
    raise DistilPoseError(f"{len(failed)} of {len(trials)} jobs failed, {folders} ({why}): {advice}.")


def differing(trials: Sequence[Trial]) -> list[str]:
    """The settings that are not the same for all."""
    names = dict.fromkeys(name for trial in trials for name in trial.settings)
    return [name for name in names if len({trial.settings.get(name) for trial in trials}) > 1]


def _earlier(place: Path, monitor: str) -> list[Trial]:
    if not (place / ROWS).is_file():
        return []
    try:
        content = json.loads((place / ROWS).read_text())
        trials = [trial for row in content["trials"] if Path((trial := Trial(**row)).folder).is_dir()]
    except (ValueError, KeyError, TypeError) as error:
        quarantine(place / ROWS, error)
        return []
    return trials if content["monitor"] == monitor else []


def _table(trials: Sequence[Trial], names: Sequence[str], monitor: str, best: Trial | None) -> str:
    lines = [
        f"| run | state | {monitor} |" + "".join(f" {name} |" for name in names),
        "| --- " * (3 + len(names)) + "|",
    ]
    for trial in trials:
        value = f"{trial.value:.4f}" if trial.value is not None and known(trial.value) else "-"
        cells = [Path(trial.folder).name, trial.state, f"**{value}**" if trial is best else value]
        lines.append("| " + " | ".join([*cells, *(_short(trial.settings.get(name, "-")) for name in names)]) + " |")
    notes = [f"{trial.folder} {trial.state}: {trial.note}" for trial in trials if trial.note]
    return "\n\n".join(["\n".join(lines), *notes])


def _short(value: str) -> str:
    try:
        return f"{float(value):.4g}" if len(value) > 8 else value
    except ValueError:
        return value.replace("|", "\\|")


def draw_trials(
    trials: Sequence[Trial], names: Sequence[str], monitor: str, best: Trial | None = None
) -> Figure | None:
    """One panel a setting: a dot for each trial that is done, a cross for what was stopped earlier, a ring about the best.

    None where no trial has a value, or no setting is named.
    """
    shown = [trial for trial in trials if trial.value is not None]
    if not shown or not names:
        return None
    names = names[:MOST]
    figure = Figure(figsize=(1.2 + 3.2 * len(names), 3.6), layout="constrained")
    panels = figure.subplots(1, len(names), sharey=True, squeeze=False)[0]
    colours = {state: f"C{index}" for index, state in enumerate((DONE, PRUNED, LEFT, FAILED))}
    for axes, name in zip(panels, names, strict=True):
        texts = [trial.settings.get(name, "-") for trial in shown]
        places, numeric = _numbers(texts)
        if numeric and min(places) > 0 and max(places) > 10 * min(places):
            axes.set_xscale("log")
        if not numeric or len(set(places)) <= 5:
            ticks = dict(zip(places, texts, strict=True))
            axes.set_xticks(list(ticks), list(ticks.values()), rotation=0 if numeric else 30)
            axes.minorticks_off()
        for state, colour in colours.items():
            points = [(x, trial.value) for x, trial in zip(places, shown, strict=True) if trial.state == state]
            if points:
                axes.scatter(*zip(*points, strict=True), c=colour, marker="o" if state == DONE else "x", label=state)
        if best is not None:
            at = places[shown.index(best)]
            axes.scatter([at], [best.value], s=140, facecolors="none", edgecolors="k", label="best")
        axes.set_xlabel(name)
        axes.grid(alpha=0.3)
    panels[0].set_ylabel(monitor)
    panels[-1].legend(fontsize="small")
    return figure


def _numbers(texts: Sequence[str]) -> tuple[list[float], bool]:
    """Where each value lies on an axis, and whether it is its number or only its place among the words."""
    try:
        return [float(text) for text in texts], True
    except ValueError:
        order = list(dict.fromkeys(texts))
        return [float(order.index(text)) for text in texts], False
