"""Figures, tables, histograms and curves for every logger, because Lightning's common interface has only figures."""

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
    """Log numbers to every logger, but not to metrics.csv, which has only the values that the module logs."""
    finite = {name: value for name, value in figures.items() if math.isfinite(value)}
    for logger in trainer.loggers if finite else ():
        logger.log_metrics(finite, step=trainer.global_step)


def log_histogram(trainer: Trainer, key: str, values: NDArray) -> None:
    """Log a histogram to W&B and TensorBoard; values that are not finite are left out."""
    values = np.asarray(values)[np.isfinite(values)]
    for logger in trainer.loggers if len(values) else ():
        if isinstance(logger, WandbLogger):
            logger.log_metrics({key: wandb.Histogram(values.tolist())}, step=trainer.global_step)  # type: ignore[dict-item]
        elif isinstance(logger, TensorBoardLogger):
            logger.experiment.add_histogram(key, values, trainer.global_step)


def log_curves(
    trainer: Trainer, key: str, curves: Mapping[str, tuple[NDArray, NDArray]], title: str, x_name: str
) -> None:
    """Log curves to W&B as one of its own plots, in which it compares runs.

    Args:
        trainer: trainer with the loggers.
        key: name of the plot.
        curves: x (n,) and y (n,) of each curve, by name.
        title: title of the plot.
        x_name: name of the horizontal axis.
    """
    xs, ys = zip(*((x.tolist(), y.tolist()) for x, y in curves.values()), strict=True)
    for logger in trainer.loggers:
        if isinstance(logger, WandbLogger):
            plot = wandb.plot.line_series(list(xs), list(ys), keys=list(curves), title=title, xname=x_name)
            logger.log_metrics({key: plot}, step=trainer.global_step)  # type: ignore[dict-item]


def log_table(
    trainer: Trainer, key: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], pictures: Sequence[NDArray]
) -> None:
    """Log a table to every logger; on W&B each row begins with a picture.

    Args:
        trainer: trainer with the loggers.
        key: name of the table.
        columns: names of the columns, without that of the picture.
        rows: texts and numbers, None for an empty cell.
        pictures: (H, W, 3) uint8 RGB pictures, one for each row.
    """
    for logger in trainer.loggers:
        if isinstance(logger, WandbLogger):
            data = [[wandb.Image(picture), *row] for picture, row in zip(pictures, rows, strict=True)]
            logger.log_table(key, ["picture", *columns], data, step=trainer.global_step)
        elif isinstance(logger, TensorBoardLogger):
            lines = [columns, ["---"] * len(columns), *rows]
            text = "\n".join("| " + " | ".join(map(_cell_text, line)) + " |" for line in lines)
            logger.experiment.add_text(key, text, trainer.global_step)
        elif isinstance(logger, MLFlowLogger):
            file = io.StringIO()
            csv.writer(file, lineterminator="\n").writerows([columns, *rows])
            logger.experiment.log_text(logger.run_id, file.getvalue(), f"{key}_step_{trainer.global_step}.csv")


def _cell_text(value: Any) -> str:
    return "" if value is None else f"{value:.3g}" if isinstance(value, float) else str(value)
