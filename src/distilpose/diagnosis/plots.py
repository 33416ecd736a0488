"""Plots of a diagnosis, drawn from its report."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from distilpose.evaluation import ERROR_TYPES
from distilpose.files import atomic_write

TYPE_COLOURS = ("#4c9f70", "#c9d66b", "#e8a33d", "#8a6fb0", "#c8553d")
ROLE_COLOURS = {"student": "#1f6fb2", "teacher": "#3b3b3b", "baseline": "#d1762b"}


def draw_diagnosis(report: Mapping[str, Any], folder: str | Path) -> list[Path]:
    """Write errors.png, calibration.png and, with a teacher, pull.png; returns their paths."""
    figures = {"errors": _errors(report), "calibration": _calibration(report)}
    if report.get("pull"):
        figures["pull"] = _gradients(report["pull"])
    return [_write(figure, Path(folder) / f"{name}.png") for name, figure in figures.items()]


def _errors(report: Mapping[str, Any]) -> Figure:
    """Shares of the error types for each joint, the models side by side."""
    parts = {role: figures["all"] for role, figures in report["errors"].items()}
    joints = ["all joints", *parts["student"]["per_joint"]]
    figure = Figure(figsize=(1.5 + 4 * len(parts), 1.6 + 0.3 * len(joints)))
    panels = figure.subplots(1, len(parts), sharey=True, squeeze=False)
    for panel, (role, figures) in zip(panels[0], parts.items(), strict=True):
        rows = [figures, *figures["per_joint"].values()]
        left = np.zeros(len(rows))
        for name, colour in zip(ERROR_TYPES, TYPE_COLOURS, strict=True):
            width = np.nan_to_num(np.array([row[name] for row in rows], dtype=float))
            panel.barh(joints, width, left=left, color=colour, label=name, height=0.8)
            left += width
        pck = f", PCK {figures['PCK']:.1%}" if math.isfinite(figures["PCK"]) else ""
        panel.set(title=f"{role}{pck}", xlim=(0, 1), xlabel="share of labelled joints")
        panel.axhline(0.5, color="white", linewidth=3)
        panel.spines[["top", "right", "left"]].set_visible(False)
        panel.tick_params(left=False)
    panels[0][0].invert_yaxis()
    handles, labels = panels[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(ERROR_TYPES), frameon=False)
    return figure


def _calibration(report: Mapping[str, Any]) -> Figure:
    """Left: confidence against OKS. Right: predicted sigma against error."""
    figure = Figure(figsize=(11, 4.8))
    left, right = figure.subplots(1, 2)
    left.plot([0, 1], [0, 1], color="0.6", linestyle="--", label="ideal")
    trained = False
    longest = 0.0
    for role, figures in report["calibration"].items():
        colour, sigma = ROLE_COLOURS[role], figures["sigma"]
        if figures["confidence"]:
            trained = True
            bins = figures["confidence"]["bins"]
            label = f"{role}: calibration error {figures['confidence']['error']:.2f}"
            sizes = 15 + 250 * np.array(bins["counts"]) / max(1, *bins["counts"])
            left.plot(bins["confidence"], bins["oks"], color=colour, alpha=0.5)
            left.scatter(bins["confidence"], bins["oks"], s=sizes, color=colour, alpha=0.8, label=label)
        bins = sigma["bins"]
        label = f"{role}: rms error, calibration error {sigma['error']:.2f} cells"
        right.plot(bins["sigma"], bins["rms"], color=colour, marker="o", label=label)
        right.plot(bins["sigma"], bins["mean_absolute"], color=colour, marker=".", linestyle=":", label="mean |error|")
        longest = max([longest, *bins["sigma"]])
    right.plot([0, longest], [0, longest], color="0.6", linestyle="--", label="ideal: rms error = sigma")
    right.set(
        title="predicted sigma and true error", xlabel="predicted sigma (cells)", ylabel="error along the axis (cells)"
    )
    right.set(xlim=(0, None), ylim=(0, None))
    left.set(
        title="confidence and similarity",
        xlabel="confidence",
        ylabel="mean OKS of the joint",
        xlim=(0, 1.05),
        ylim=(0, 1.05),
    )
    if not trained:
        left.text(0.5, 0.5, "no loss trained the confidence", ha="center", transform=left.transAxes)
    for panel in (left, right):
        panel.legend(fontsize=8, loc="best")
        _plain(panel)
    return figure


def _gradients(pull: Mapping[str, Any]) -> Figure:
    """Left: distance of the student from the teacher's peaks. Others: gradients of the terms by distance."""
    figure = Figure(figsize=(16, 5.1))
    left, *others = figure.subplots(1, 3)
    starts, joints = pull["by_sigmas"]["from"], np.array(pull["by_sigmas"]["joints"])
    names = [f"{a:g}–{b:g}" for a, b in pairwise(starts)] + [f"> {starts[-1]:g}"]
    colours = ["#1f6fb2" if start < 3 else "#c8553d" for start in starts]
    left.bar(names, joints / joints.sum(), color=colours)
    left.set(
        title=f"{pull['beyond_3_sigmas']:.1%} of joints are beyond 3 sigmas",
        xlabel="distance to the teacher's peak (student's sigmas)",
        ylabel="share of joints",
    )
    left.tick_params(axis="x", labelrotation=45)
    _plain(left)
    for panel, key, place in zip(others, ("by_cells", "by_error"), ("the teacher's peak", "the truth"), strict=True):
        _strengths(panel, pull[key])
        panel.set(title=f"gradient by distance to {place}", xlabel=f"distance to {place} (cells)")
    handles, labels = others[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)
    return figure


def _strengths(panel: Axes, rows: list[dict[str, Any]]) -> None:
    """Gradient of each term by distance, with the share of joints in the background."""
    distance, joints = [row["distance"] for row in rows], np.array([row["joints"] for row in rows])
    strongest = max(max(row["strength"].values(), default=0.0) for row in rows)
    for number, name in enumerate(rows[0]["strength"]):
        strength = [row["strength"][name] for row in rows]
        panel.plot(distance, strength, marker="o", color=f"C{number}", label=name.replace("_", " "))
    panel.set(ylabel="mean length of a joint's gradient per cell", yscale="log")
    if strongest > 0:  # much weaker gradients do not matter, and would stretch the axis
        panel.set_ylim(max(panel.get_ylim()[0], 1e-4 * strongest), None)
    background = panel.twinx()
    starts = [row["from"] for row in rows]
    ends = [2 * row["distance"] - row["from"] if row["to"] is None else row["to"] for row in rows]
    background.bar(
        starts, joints / joints.sum(), np.subtract(ends, starts), align="edge", color="0.87", edgecolor="white"
    )
    background.set_ylabel("share of joints (grey)")
    panel.set_xlim(0, ends[-1])
    panel.set_zorder(1)
    background.set_zorder(0)
    panel.patch.set_visible(False)


def _plain(panel: Axes) -> None:
    """Remove the upper and right side of the frame."""
    panel.spines[["top", "right"]].set_visible(False)


def _write(figure: Figure, path: Path) -> Path:
    """Write a figure as PNG."""
    figure.set_layout_engine("constrained")
    with atomic_write(path) as temporary:
        figure.savefig(temporary, dpi=110)
    return path
