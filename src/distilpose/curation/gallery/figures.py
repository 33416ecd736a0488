"""Figures of a data set's statistics."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from distilpose.data.annotations import KeypointAnnotations
from distilpose.visualization.drawing import COLOURS

_MAX_POINTS = 2000  # points drawn for each joint in the figure of positions


def draw_figures(annotations: KeypointAnnotations, folder: Path) -> list[tuple[str, str]]:
    """Write the figures as PNG. Returns the path of each, relative to the page, and its caption."""
    parts = [
        ("persons", "Persons per image", _persons),
        ("boxes", "Boxes: square root of width times height, in pixels", _boxes),
        ("joints", "Share of persons in which each joint is labelled", _joints),
        ("positions", "Where joints lie in the box (0 to 1 is inside)", _positions),
    ]
    if annotations.skeleton.limbs:
        parts.append(("bones", "Length of bones, in square roots of the box", _bones))
    figures = []
    for name, caption, draw in parts:
        count = annotations.skeleton.num_keypoints if name in ("joints", "bones") else 17
        figure = Figure(figsize=(5, max(3.6, 0.2 * min(count, 100) + 1)), layout="constrained")
        draw(figure.subplots(), annotations)
        figure.savefig(folder / f"{name}.png", dpi=110)
        figures.append((f"{folder.name}/{name}.png", caption))
    return figures


def _persons(axes: Axes, data: KeypointAnnotations) -> None:
    counts = np.unique(data.image_ids, return_counts=True)[1]
    counts = np.concatenate([counts, np.zeros(len(data.images) - len(counts), dtype=int)])
    axes.hist(np.minimum(counts, 20), bins=np.arange(-0.5, min(counts.max(), 20) + 1.5).tolist(), color="0.4")
    axes.set(xlabel="persons with labelled joints (20: or more)", ylabel="images")


def _boxes(axes: Axes, data: KeypointAnnotations) -> None:
    side = np.sqrt(np.maximum(data.boxes[:, 2] * data.boxes[:, 3], 1))
    axes.hist(side, bins=np.geomspace(max(side.min(), 4), max(side.max(), 8) * 1.01, 40).tolist(), color="0.4")
    axes.set(xscale="log", xlabel="pixels", ylabel="persons")


def _joints(axes: Axes, data: KeypointAnnotations) -> None:
    shares = data.labelled.mean(0)
    axes.barh(range(len(shares)), shares, color=_colours(data))
    axes.set(xlim=(0, 1), xlabel="share of persons")
    axes.set_yticks(range(len(shares)), _names(data), fontsize=7, parse_math=False)
    axes.invert_yaxis()


def _positions(axes: Axes, data: KeypointAnnotations) -> None:
    sides = np.maximum(data.boxes[:, None, 2:], 1)
    places = (data.keypoints - data.boxes[:, None, :2]) / sides
    for joint, colour in enumerate(_colours(data)):
        rows = places[data.labelled[:, joint], joint]
        rows = rows[:: max(1, len(rows) // _MAX_POINTS)]
        axes.plot(*rows.T, ".", color=colour, markersize=2, alpha=0.15)
    for joint, colour in enumerate(_colours(data)):
        rows = places[data.labelled[:, joint], joint]
        if len(rows):
            axes.plot(*np.median(rows, axis=0), "o", color=colour, markeredgecolor="black", markersize=6)
    axes.plot([0, 1, 1, 0, 0], [0, 0, 1, 1, 0], color="0.3", linewidth=1)
    axes.set(xlim=(-0.5, 1.5), ylim=(1.5, -0.5), xlabel="x (ringed: the median of each joint)", ylabel="y")


def _bones(axes: Axes, data: KeypointAnnotations) -> None:
    names, size = _names(data), np.sqrt(np.maximum(data.boxes[:, 2] * data.boxes[:, 3], 1))
    labels = []
    for place, (start, end) in enumerate(data.skeleton.limbs):
        both = data.labelled[:, start] & data.labelled[:, end]
        length = np.linalg.norm(data.keypoints[both, start] - data.keypoints[both, end], axis=1)
        if len(length):
            low, middle, high = np.quantile(length / size[both], (0.02, 0.5, 0.98))
            axes.plot([low, high], [place, place], color="0.6", linewidth=3)
            axes.plot(middle, place, "o", color="0.2", markersize=5)
        labels.append(f"{names[start]} to {names[end]}")
    axes.set_yticks(range(len(labels)), labels, fontsize=7, parse_math=False)
    axes.set(xlabel="length (dot: median, line: 96 % of persons)")
    axes.invert_yaxis()


def _colours(data: KeypointAnnotations) -> list[tuple[float, float, float]]:
    rows = [COLOURS[side] for side in data.skeleton.sides]
    return [(r / 255, g / 255, b / 255) for r, g, b in rows]


def _names(data: KeypointAnnotations) -> list[str]:
    return [name[:30] if name.isprintable() else f"joint {joint}" for joint, name in enumerate(data.skeleton.names)]
