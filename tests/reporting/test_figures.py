"""Learning curves, and the metric against a setting."""

from __future__ import annotations

import math

import numpy as np
import pytest

from distilpose.reporting.figures import draw_by, draw_curves
from distilpose.reporting.values import row_values


def test_curves_are_means_over_epochs_and_time(row, report_cfg):
    values = row_values(row("a", {0: [0.1, None, 0.3], 1: [0.2, None, 0.6]}), report_cfg())
    left, right = draw_curves([values], "val/PCK").axes
    for axes, x in ((left, [1, 3]), (right, [0.5, 1.5])):
        np.testing.assert_allclose(axes.lines[0].get_xdata(), x)
        np.testing.assert_allclose(axes.lines[0].get_ydata(), [15, 45])
        (band,) = axes.collections
        edges = band.get_paths()[0].vertices
        assert max(edges[edges[:, 0] == x[1], 1]) == pytest.approx(45 + 100 * np.std([0.3, 0.6], ddof=1))
    assert right.get_xlabel() == "minutes of training"


def test_a_setting_on_an_axis(row, report_cfg):
    rows = [
        row_values(
            row(name, {seed: [offset + share / 10 + seed / 50] for seed in (0, 1)},
                {"name": name, "data.label_share": share}), report_cfg(),
        )
        for name, offset in (("distilpose", 0.5), ("regression", 0.3))
        for share in (0.02, 0.1, 1.0)
    ]  # fmt: skip
    rows.append(row_values(row("heatmaps", {0: [0.8]}, {"name": "heatmaps"}), report_cfg()))
    (axes,) = draw_by(rows, "val/PCK", "data.label_share").axes
    lines = {bars.get_label(): bars.lines for bars in axes.containers}
    assert set(lines) == {"distilpose", "regression"}
    line, _, (bars,) = lines["regression"]
    np.testing.assert_allclose(line.get_xdata(), [0.02, 0.1, 1.0])
    np.testing.assert_allclose(line.get_ydata(), [31.2, 32.0, 41.0])
    heights = [np.ptp(segment[:, 1]) / 2 for segment in bars.get_segments()]
    np.testing.assert_allclose(heights, math.sqrt(2))  # of two values 2 apart
    assert axes.get_xscale() == "log"
    (level,) = [line for line in axes.lines if "not set" in str(line.get_label())]
    np.testing.assert_allclose(level.get_ydata(), 80)


def test_an_axis_of_files_shows_the_part_that_differs(table):
    files = [f"runs/{name}/checkpoints/last.ckpt" for name in ("small", "large")]
    rows = table(*(("distilpose", 0.3, {"name": "distilpose", "teacher.checkpoint": file}) for file in files))
    (axes,) = draw_by(rows, "val/PCK", "teacher.checkpoint").axes
    assert [label.get_text() for label in axes.get_xticklabels()] == ["small", "large"]
    assert [bars.get_label() for bars in axes.containers] == ["distilpose"]


def test_any_name_and_many_rows_are_drawn(table):
    names = ["_a", "", "$\\foo$", "a\nb", *(f"student_{number}" + " of a long name" * number for number in range(8))]
    rows = table(*((name, 0.5, {"name": name}) for name in names))
    for figure in (draw_curves(rows, "val/PCK"), draw_by(rows, "val/PCK", "name")):
        figure.draw_without_rendering()  # a formula that is none would raise here
        (legend,) = figure.legends
        assert len(legend.get_texts()) == len(names) if figure.axes[0].get_xlabel() != "name" else 1
