"""Where figures, tables, distributions and curves go: each logger shows what it can, in its own way."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import wandb
from lightning import Trainer
from lightning.pytorch.loggers import MLFlowLogger, TensorBoardLogger, WandbLogger
from numpy.typing import NDArray


def log_figures(trainer: Trainer, figures: Mapping[str, float]) -> None:
    """Numbers to every logger, and to loggers alone: what the module logs also becomes a column of metrics.csv."""
    known = {name: value for name, value in figures.items() if math.isfinite(value)}
    for logger in trainer.loggers if known else ():
        logger.log_metrics(known, step=trainer.global_step)


def log_histogram(trainer: Trainer, key: str, values: NDArray) -> None:
    """A distribution to W&B and TensorBoard; values that are not finite are left out."""
    values = np.asarray(values)[np.isfinite(values)]
    for logger in trainer.loggers if len(values) else ():
        if isinstance(logger, WandbLogger):
            logger.log_metrics({key: wandb.Histogram(values.tolist())}, step=trainer.global_step)  # type: ignore[dict-item]
        elif isinstance(logger, TensorBoardLogger):
            logger.experiment.add_histogram(key, values, trainer.global_step)


def log_curves(
    trainer: Trainer, key: str, curves: Mapping[str, tuple[NDArray, NDArray]], title: str, x_name: str
) -> None:
    """Curves to W&B as a plot of its own, where runs are compared in it.

    Args:
        trainer: whose loggers.
        key: name of the plot.
        curves: by name (n,) positions along x and (n,) heights.
        title: of the plot.
        x_name: of the horizontal axis.
    """
    xs, ys = zip(*((x.tolist(), y.tolist()) for x, y in curves.values()), strict=True)
    for logger in trainer.loggers:
        if isinstance(logger, WandbLogger):
            plot = wandb.plot.line_series(list(xs), list(ys), keys=list(curves), title=title, xname=x_name)
            logger.log_metrics({key: plot}, step=trainer.global_step)  # type: ignore[dict-item]


def log_table(
    trainer: Trainer, key: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], pictures: Sequence[NDArray]
) -> None:
    """A table to every logger: to W&B with a picture at the head of each row, else without.

    Args:
        trainer: whose loggers.
        key: name of the table.
        columns: names, without the picture's.
        rows: words and numbers, None where there is none.
        pictures: (H, W, 3) uint8 RGB, one a row.
    """
    for logger in trainer.loggers:
        if isinstance(logger, WandbLogger):
            data = [[wandb.Image(picture), *row] for picture, row in zip(pictures, rows, strict=True)]
            logger.log_table(key, ["picture", *columns], data, step=trainer.global_step)
        elif isinstance(logger, TensorBoardLogger):
            lines = [columns, ["---"] * len(columns), *rows]
            text = "\n".join("| " + " | ".join(map(_shown, line)) + " |" for line in lines)
            logger.experiment.add_text(key, text, trainer.global_step)
        elif isinstance(logger, MLFlowLogger):
            file = io.StringIO()
            csv.writer(file, lineterminator="\n").writerows([columns, *rows])
            logger.experiment.log_text(logger.run_id, file.getvalue(), f"{key}_step_{trainer.global_step}.csv")


def _shown(value: Any) -> str:
    """A table's cell."""
    return "" if value is None else f"{value:.3g}" if isinstance(value, float) else str(value)
