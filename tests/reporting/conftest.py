"""Rows and tables in memory, and the configuration of a report."""

from __future__ import annotations

from pathlib import Path

import pytest
from omegaconf import OmegaConf
from run_folders import composed

from distilpose.reporting.rows import Row
from distilpose.reporting.values import row_values
from distilpose.runs.folders import Run


@pytest.fixture
def report_cfg():
    """Makes the configuration of a report with these settings."""

    def make(**settings):
        return OmegaConf.merge(composed("report"), settings)

    return make


@pytest.fixture
def row():
    """Makes a row: by seed, a value of the metric per epoch (None: not validated), half a minute each."""

    def make(name, by_seed, settings=None, planned=None, metric="val/PCK"):
        runs = {}
        for seed, values in by_seed.items():
            rows = [
                {"epoch": epoch, "step": 10 * (epoch - 1), "minutes": epoch / 2, "train/total": 1 / epoch}
                | ({} if value is None else {metric: value})
                for epoch, value in enumerate(values, start=1)
            ]
            runs[seed] = Run(Path(f"{name}_{seed}"), seed, planned or len(values), settings or {}, rows)
        return Row(name, runs, settings or {})

    return make


@pytest.fixture
def table(row, report_cfg):
    """Makes a table of rows with one seed and one epoch: (name, value, settings)."""

    def make(*lines):
        return [row_values(row(name, {0: [value]}, settings), report_cfg()) for name, value, settings in lines]

    return make
