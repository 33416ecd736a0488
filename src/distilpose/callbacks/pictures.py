"""What is transferred, for a few persons: heat maps of teacher and student side by side, with their difference."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from lightning import Callback, Trainer
from torch import Tensor

from distilpose.data.codec import decode_heatmaps, encode_heatmaps
from distilpose.losses import simulated_heatmaps
from distilpose.modules import DistillationModule, HeatmapModule
from distilpose.modules.base import PoseModule
from distilpose.outputs import PoseBatch
from distilpose.visualization.drawing import contact_sheet, crop_image, difference_image, draw_skeleton, heatmap_image
from distilpose.visualization.samples import log_picture, sample_persons

# crops are enlarged to about this height, so that small ones can be seen
HEIGHT = 192


class Pictures(Callback):
    """Draws the same persons after each validation, one a row, into pictures/persons_epoch_<n>.png and to the logger.

    Columns of a student: crop, ground truth, prediction, teacher heat map, simulated heat map, their difference (red
    where the student's is higher); without a teacher the maps are the student's alone. Columns of a teacher: crop,
    ground truth, prediction, target heat map, predicted heat map, their difference.

    Args:
        folder: where the pictures are written.
        persons: how many rows.
    """

    def __init__(self, folder: str | Path, persons: int = 6):
        self.folder = Path(folder)
        self.persons = persons

    @torch.no_grad()
    def on_validation_epoch_end(self, trainer: Trainer, pl_module: PoseModule) -> None:  # type: ignore[override]
        """Draw."""
        if trainer.sanity_checking or not trainer.is_global_zero:
            return
        batch = sample_persons(trainer, self.persons, pl_module.device)
        was_training = pl_module.model.training
        pl_module.model.eval()
        picture = draw_persons(pl_module, batch)
        pl_module.model.train(was_training)
        log_picture(trainer, self.folder / f"persons_epoch_{trainer.current_epoch:04d}.png", picture)


def draw_persons(module: PoseModule, batch: PoseBatch) -> np.ndarray:
    """The sheet of one batch, for a student's or a teacher's module in eval mode."""
    if isinstance(module, DistillationModule):
        predicted, maps = _of_student(module, batch)
    else:
        assert isinstance(module, HeatmapModule)
        predicted, maps = _of_teacher(module, batch)
    model = module.model
    height, width = model.input_size
    factor = max(1, round(HEIGHT / height))
    size = (height * factor, width * factor)
    extent = batch.keypoints.new_tensor([size[1], size[0]])
    rows = []
    for n in range(len(batch.image)):
        crop = crop_image(batch.image[n], model.mean, model.std, size)
        people = ((batch.keypoints[n], batch.weights[n]), (predicted[n], batch.weights[n] * 0 + 1))
        drawn = [draw_skeleton(crop, (p * extent)[None].cpu(), s[None].cpu(), model.skeleton) for p, s in people]
        coloured = [heatmap_image(values[n], size) for name, values in maps.items() if name != "difference"]
        if "difference" in maps:
            coloured.append(difference_image(maps["difference"][n], size))
        rows.append([crop, *drawn, *coloured])
    return contact_sheet(rows, titles=["crop", "ground truth", "prediction", *maps])


def _of_student(module: DistillationModule, batch: PoseBatch) -> tuple[Tensor, dict[str, Tensor]]:
    """Predicted keypoints, and the maps to show."""
    output = module.model(batch.image)
    simulated, _ = simulated_heatmaps(output.keypoints.float(), output.sigmas.float(), module.model.heatmap_size)
    if module.teacher is None or not module.teacher.reads_images:  # no maps of validation persons
        return output.keypoints.float(), {"simulated heat map": simulated}
    maps = module.teacher(batch).heatmaps.float()
    return output.keypoints.float(), {
        "teacher heat map": maps,
        "simulated heat map": simulated,
        "difference": simulated - maps,
    }


def _of_teacher(module: HeatmapModule, batch: PoseBatch) -> tuple[Tensor, dict[str, Tensor]]:
    """Predicted keypoints, and the maps to show."""
    maps = module.model(batch.image).heatmaps.float()
    target, _ = encode_heatmaps(batch.keypoints, batch.labelled, module.model.heatmap_size, module.sigma)
    return decode_heatmaps(maps)[0], {"target heat map": target, "heat map": maps, "difference": maps - target}
