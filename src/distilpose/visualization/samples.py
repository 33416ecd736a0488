"""Pictures of a training: the validation persons to show, and logging to the run's folder and its loggers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from lightning import Trainer
from lightning.pytorch.loggers import MLFlowLogger, TensorBoardLogger, WandbLogger
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch.utils.data import default_collate

from distilpose.outputs import PoseBatch
from distilpose.visualization.drawing import write_picture


def sample_persons(trainer: Trainer, count: int, device: torch.device) -> PoseBatch:
    """A batch of `count` persons, evenly spaced over the validation set: the same ones every time."""
    dataset = trainer.datamodule.val_dataset()  # type: ignore[attr-defined]
    indices = torch.linspace(0, len(dataset) - 1, min(count, len(dataset))).long().tolist()
    batch = default_collate([dataset[index] for index in indices])
    return PoseBatch(*(field.to(device) for field in batch))


def figure_to_picture(figure: Figure) -> np.ndarray:
    """Draw a figure as an (H, W, 3) uint8 RGB picture."""
    canvas = FigureCanvasAgg(figure)  # needs no display
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def log_picture(trainer: Trainer, path: Path, picture: np.ndarray) -> None:
    """Write an RGB picture to the run's folder, and log it to every logger that shows pictures."""
    write_picture(path, picture)
    key, step = path.stem.split("_epoch")[0], trainer.global_step
    for logger in trainer.loggers:
        if isinstance(logger, WandbLogger):
            logger.log_image(key=key, images=[picture], step=step)
        elif isinstance(logger, TensorBoardLogger):
            logger.experiment.add_image(key, picture, step, dataformats="HWC")
        elif isinstance(logger, MLFlowLogger):
            logger.experiment.log_image(logger.run_id, picture, key=key, step=step)
