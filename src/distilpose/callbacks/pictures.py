"""Pictures of heat maps of teacher and student side by side, with their difference."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
from annotated_types import Ge
from lightning import Callback, Trainer
from torch import Tensor

from distilpose.data.codec import decode_heatmaps, encode_heatmaps
from distilpose.losses import simulated_heatmaps
from distilpose.modules import DistillationModule, HeatmapModule
from distilpose.modules.pose_module import PoseModule
from distilpose.outputs import PoseBatch
from distilpose.visualization.drawing import contact_sheet, crop_image, difference_image, draw_skeleton, heatmap_image
from distilpose.visualization.samples import log_picture, sample_persons

# crops are enlarged to about this height in pixels
HEIGHT = 192


class Pictures(Callback):
    """Draw the same persons after each validation, one per row, to persons_epoch_<n>.png and to the loggers.

    Columns of a student: crop, ground truth, prediction, teacher heat map, simulated heat map, their difference (red
    where the student's is higher); without a teacher, only the student's map. Columns of a teacher: crop,
    ground truth, prediction, target heat map, predicted heat map, their difference.

    Args:
        folder: folder of the pictures.
        persons: number of rows.
    """

    def __init__(self, folder: str | Path, persons: Annotated[int, Ge(1)] = 6):
        self.folder = Path(folder)
        self.persons = persons

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: PoseModule) -> None:  # type: ignore[override]
        """Draw the picture, in the first process."""
        if trainer.sanity_checking or not trainer.is_global_zero:
            return
        batch = sample_persons(trainer, self.persons, pl_module.device)
        picture = draw_persons(pl_module, batch)
        log_picture(trainer, self.folder / f"persons_epoch_{trainer.current_epoch:04d}.png", picture)


def draw_persons(module: PoseModule, batch: PoseBatch) -> np.ndarray:
    """Draw the persons of one batch, for a student's or a teacher's module in eval mode."""
    if isinstance(module, DistillationModule):
        predicted, maps = _student_maps(module, batch)
    else:
        assert isinstance(module, HeatmapModule)
        predicted, maps = _teacher_maps(module, batch)
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


def _student_maps(module: DistillationModule, batch: PoseBatch) -> tuple[Tensor, dict[str, Tensor]]:
    """Predicted keypoints, and the maps to draw by title."""
    output = module.model(batch.image)
    simulated, _ = simulated_heatmaps(output.keypoints.float(), output.sigmas.float(), module.model.heatmap_size)
    if module.teacher is None or not module.teacher.reads_images:  # it has no maps of validation persons
        return output.keypoints.float(), {"simulated heat map": simulated}
    maps = module.teacher(batch).heatmaps.float()
    return output.keypoints.float(), {
        "teacher heat map": maps,
        "simulated heat map": simulated,
        "difference": simulated - maps,
    }


def _teacher_maps(module: HeatmapModule, batch: PoseBatch) -> tuple[Tensor, dict[str, Tensor]]:
    """Predicted keypoints, and the maps to draw by title."""
    maps = module.model(batch.image).heatmaps.float()
    target, _ = encode_heatmaps(batch.keypoints, batch.labelled, module.model.heatmap_size, module.sigma)
    return decode_heatmaps(maps)[0], {"target heat map": target, "heat map": maps, "difference": maps - target}
