"""The picture of a sweep: the metric against each setting."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from matplotlib.figure import Figure

if TYPE_CHECKING:
    from distilpose.trials import Trial

MOST = 8  # settings drawn


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
    colours = {state: f"C{index}" for index, state in enumerate(("done", "pruned", "left off", "failed"))}
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
                axes.scatter(*zip(*points, strict=True), c=colour, marker="o" if state == "done" else "x", label=state)
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
