"""Figures of a report: learning curves, and the metric against a setting."""

from __future__ import annotations

import math
from collections.abc import Sequence
from textwrap import fill
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from distilpose.reporting.rows import format_values, name_configurations
from distilpose.reporting.values import scale_of


def draw_curves(table: Sequence[dict[str, Any]], metric: str) -> Figure:
    """The metric over epochs and over time: mean of the seeds, with the standard deviation as a band."""
    figure = Figure(figsize=(11, 4.2 + 0.11 * len(table)), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    hours = any(minutes > 120 for line in table for minutes in line["curve"]["minutes"])
    for index, line in enumerate(table):
        curve = line["curve"]
        mean, spread = (scale_of(metric) * np.array(curve[key], dtype=float) for key in ("mean", "sd"))
        for axes, x in zip(panels, (curve["epochs"], np.array(curve["minutes"]) / (60 if hours else 1)), strict=True):
            axes.plot(x, mean, **_style(index), label=_escape(line["name"]))
            axes.fill_between(x, mean - spread, mean + spread, color=f"C{index % 10}", alpha=0.15, linewidth=0)
    for axes, label in zip(panels, ("epochs", "hours" if hours else "minutes"), strict=True):
        axes.set_xlabel(f"{label} of training")
        axes.set_xlim(left=0)
    panels[0].xaxis.get_major_locator().set_params(integer=True)
    return _finish(figure, metric)


def draw_by(table: Sequence[dict[str, Any]], metric: str, x: str) -> Figure:
    """The metric against a setting: a line for rows that differ only in it, a dashed level for rows without it."""
    figure = Figure(figsize=(8, 4.4 + 0.11 * len(table)), layout="constrained")
    axes = figure.subplots()
    rest = [{key: value for key, value in line["settings"].items() if key != x} for line in table]
    groups = [settings for index, settings in enumerate(rest) if settings not in rest[:index]]
    values = [line["settings"][x] for line in table if line["settings"].get(x) is not None]
    labels = format_values(values)
    numeric = all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in values)
    order = list(dict.fromkeys(labels))
    positions = {str(v): v if numeric else order.index(label) for v, label in zip(values, labels, strict=True)}
    for index, (settings, name) in enumerate(zip(groups, name_configurations(groups), strict=True)):
        points = []
        for line in (line for line, other in zip(table, rest, strict=True) if other == settings):
            mean, spread = (scale_of(metric) * (math.nan if line[key] is None else line[key]) for key in ("mean", "sd"))
            position = positions.get(str(line["settings"].get(x)))
            if position is not None:
                points.append((position, mean, spread))
                continue
            axes.axhline(
                mean, **{**_style(index), "linestyle": "--", "marker": None}, label=_escape(f"{name}, {x} not set")
            )
            if line["sd"] is not None:
                axes.axhspan(mean - spread, mean + spread, color=f"C{index % 10}", alpha=0.15, linewidth=0)
        if points:
            axes.errorbar(*np.array(sorted(points), dtype=float).T, **_style(index), capsize=3, label=_escape(name))
    if numeric and values and min(values) > 0 and max(values) > 10 * min(values):
        axes.set_xscale("log")
    ticks = list(positions.values())
    axes.set_xticks(ticks, [f"{value:g}" for value in ticks] if numeric else list(map(_escape, order)))
    axes.minorticks_off()
    axes.set_xlabel(x)
    return _finish(figure, metric)


def _escape(text: str) -> str:
    """Escape text for matplotlib: a dollar would start a formula, and a leading underscore would hide a legend entry."""
    shown = text.replace("$", r"\$")
    return f" {shown}" if shown[:1] in ("", "_") else shown


def _style(index: int) -> dict[str, Any]:
    """Ten colours; after every ten lines another dash pattern."""
    return {"color": f"C{index % 10}", "linestyle": ("-", "--", ":")[index // 10 % 3], "marker": ".", "linewidth": 1.4}


def _finish(figure: Figure, metric: str) -> Figure:
    """Add a grid, and a legend below the panels."""
    for axes in figure.axes:
        axes.grid(alpha=0.25)
    figure.axes[0].set_ylabel(f"{metric}{' in per cent' if scale_of(metric) > 1 else ''}, mean and sd over seeds")
    lines, names = figure.axes[0].get_legend_handles_labels()
    room = int(13 * figure.get_figwidth())  # characters per line
    columns = max(1, min(4, room // (max(map(len, names)) + 6)))
    figure.legend(lines, [fill(name, room) for name in names], loc="outside lower center", fontsize=8, ncols=columns)
    return figure
