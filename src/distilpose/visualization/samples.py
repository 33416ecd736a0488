"""The few validation persons that pictures show, and where pictures go."""

from __future__ import annotations

from pathlib import Path

import cv2
import matplotlib
import numpy as np
import torch
from lightning import Trainer
from lightning.pytorch.loggers import MLFlowLogger, TensorBoardLogger, WandbLogger
from matplotlib.figure import Figure
from torch.utils.data import default_collate

from distilpose.files import atomic_write
from distilpose.outputs import PoseBatch

matplotlib.use("Agg")  # for all that draws here: no screen is needed
from matplotlib import pyplot as plt


def sample_persons(trainer: Trainer, count: int, device: torch.device) -> PoseBatch:
    """The same `count` persons each time, evenly spread over the validation set, as one batch."""
    dataset = trainer.datamodule.val_dataset()  # type: ignore[attr-defined]
    indices = torch.linspace(0, len(dataset) - 1, min(count, len(dataset))).long().tolist()
    batch = default_collate([dataset[index] for index in indices])
    return PoseBatch(*(field.to(device) for field in batch))


def figure_to_picture(figure: Figure) -> np.ndarray:
    """A figure as an (H, W, 3) uint8 RGB picture, and closed."""
    figure.canvas.draw()
    picture = np.asarray(figure.canvas.buffer_rgba())[..., :3].copy()  # type: ignore[attr-defined]
    plt.close(figure)
    return picture


def write_picture(path: Path, picture: np.ndarray) -> None:
    """Write an (H, W, 3) uint8 RGB picture in one go."""
    _, content = cv2.imencode(
        path.suffix, cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
    )  # imwrite keeps the disk's error to itself
    with atomic_write(path) as beside:
        beside.write_bytes(content.tobytes())


def log_picture(trainer: Trainer, path: Path, picture: np.ndarray) -> None:
    """Write an RGB picture to the run's folder and to every logger that shows pictures."""
    write_picture(path, picture)
    key, step = path.stem.split("_epoch")[0], trainer.global_step
    for logger in trainer.loggers:
        if isinstance(logger, WandbLogger):
            logger.log_image(key=key, images=[picture], step=step)
        elif isinstance(logger, TensorBoardLogger):
            logger.experiment.add_image(key, picture, step, dataformats="HWC")
        elif isinstance(logger, MLFlowLogger):
            logger.experiment.log_image(logger.run_id, picture, key=key, step=step)
