"""Distillation in minutes: train a teacher, a student without it and one with it: `python -m distilpose.quickstart`."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Annotated, Any

import hydra
import numpy as np
import torch
from annotated_types import Ge, Le
from hydra.utils import instantiate
from omegaconf import DictConfig
from torch.utils.data import default_collate

from distilpose.benchmark import latencies
from distilpose.cli.command import command
from distilpose.cli.validate_settings import validate_command
from distilpose.data.coco import CocoKeypoints
from distilpose.evaluation import evaluate_dataset, markdown_table, predict_batches, predict_crops
from distilpose.files import check_new_folder, write_json, write_text
from distilpose.losses import simulated_heatmaps
from distilpose.models import PoseModel, count_gmacs, count_parameters, load_model
from distilpose.outputs import PoseBatch
from distilpose.runs.train_settings import TrainSettings
from distilpose.train import fit
from distilpose.visualization.drawing import contact_sheet, crop_image, draw_skeleton, heatmap_image, write_picture

log = logging.getLogger(__name__)

COLUMNS = ("model", "trained with", "AP", "AP50", "PCK", "parameters", "GMACs", "latency (ms)")


class QuickstartSettings:
    """Settings of the quickstart command.

    Attributes:
        seed: seed of all three trainings.
        output: new folder for the three runs, the table and the contact sheet.
        overrides: overrides of every training, as on its command line.
        persons: number of persons in the contact sheet.
    """

    seed: Annotated[int, Ge(0), Le(2**32 - 1)]
    output: str | Path
    overrides: list[str]
    persons: Annotated[int, Ge(1)]


@command("quickstart", QuickstartSettings)
def main(cfg: DictConfig) -> dict[str, Any]:
    """Train the three models, evaluate them on held-out persons, print one table and draw a contact sheet."""
    start = time.monotonic()
    output = check_new_folder(cfg.output)
    distil = [f"teacher.checkpoint={output / 'teacher' / 'checkpoints' / 'last.ckpt'}"]
    recipes = {
        "teacher": ("heat maps", ["experiment=demo_teacher"]),
        "student_alone": ("coordinates alone", ["experiment=demo_student", "loss=regression"]),
        "student_distilled": ("coordinates and teacher", ["experiment=demo_student", *distil]),
    }
    models: dict[str, PoseModel] = {}
    rows: list[dict[str, Any]] = []
    for number, (name, (_, recipe)) in enumerate(recipes.items(), start=1):
        models[name], config = train(cfg, output / name, recipe, f"{number}/{len(recipes)} {name.replace('_', ' ')}")
    dataset, loader = held_out(config)
    times = latencies(models)
    for name, model in models.items():
        (predictions,) = predict_batches(model, loader, flip_tests=(True,))
        about = {"model": model.name, "trained with": recipes[name][0]}
        costs = {"parameters": f"{count_parameters(model):,}", "GMACs": f"{count_gmacs(model):.4f}"}
        metrics = evaluate_dataset(predictions, dataset).metrics
        rows.append({**about, **metrics, **costs, "latency (ms)": f"{times[name]:.1f}"})
    write_picture(output / "contact_sheet.png", draw_sheet(models, dataset, cfg.persons))
    minutes = (time.monotonic() - start) / 60
    protocol = (
        f"{len(dataset)} held-out synthetic persons, ground-truth boxes, flip test, last checkpoint, "
        f"same budget for both students, seed {cfg.seed}; latency at batch 1 on {torch.get_num_threads()} CPU threads"
    )
    report = {"protocol": protocol, "minutes": round(minutes, 1), "rows": rows}
    write_json(report, output / "metrics.json")
    gain = 100 * (rows[2]["AP"] - rows[1]["AP"])
    text = (
        f"{markdown_table(rows, COLUMNS)}\n\n{protocol}\n\nThe teacher changed the student's AP by {gain:+.1f} points."
    )
    write_text(f"{text}\n", output / "table.md")
    print(f"\n{text} {minutes:.1f} minutes in all.")
    print(f"Table: {output / 'table.md'}\nContact sheet: {output / 'contact_sheet.png'}")
    print(f"Runs, curves and pictures of each epoch: {output}")
    return report


def train(cfg: DictConfig, folder: Path, recipe: list[str], title: str) -> tuple[PoseModel, DictConfig]:
    """Run one training, composed as by the train command; returns its last model and its configuration."""
    overrides = [*recipe, f"seed={cfg.seed}", *cfg.overrides]
    log.info(f"\n[{title}] python -m distilpose.train {' '.join(overrides)} hydra.run.dir={folder}")
    config = hydra.compose("train", [*overrides, f"folder={folder}"])
    validate_command(config, TrainSettings)
    fit(config)
    return load_model(folder / "checkpoints" / "last.ckpt"), config


def held_out(config: DictConfig) -> tuple[CocoKeypoints, Any]:
    """The validation persons, and a loader of them."""
    datamodule = instantiate(config.data)
    datamodule.prepare_data()
    return datamodule.val_dataset(), datamodule.val_dataloader()


@torch.inference_mode()
def draw_sheet(models: dict[str, PoseModel], dataset: CocoKeypoints, persons: int) -> np.ndarray:
    """A row for each of some held-out persons: labels, predictions of each model, teacher's and student's heat maps."""
    spread = np.linspace(0, len(dataset) - 1, min(persons, len(dataset))).astype(int)
    batch = PoseBatch(*default_collate([dataset[index] for index in spread]))
    predicted = {name: predict_crops(model, batch.image, True)[0] for name, model in models.items()}
    teacher, student = models["teacher"], models["student_distilled"]
    heatmaps, output = teacher(batch.image).heatmaps, student(batch.image)
    simulated, _ = simulated_heatmaps(output.keypoints, output.sigmas, student.heatmap_size)
    factor = max(1, round(192 / student.input_size[0]))
    height, width = (side * factor for side in student.input_size)
    extent = torch.tensor([width, height])
    rows = []
    for n in range(len(spread)):
        crop = crop_image(batch.image[n], student.mean, student.std, (height, width))
        poses = [(batch.keypoints[n], batch.weights[n])] + [(value[n], None) for value in predicted.values()]
        drawn = [
            draw_skeleton(crop, (keypoints * extent)[None], None if shown is None else shown[None], student.skeleton)
            for keypoints, shown in poses
        ]
        rows.append([*drawn, heatmap_image(heatmaps[n], (height, width)), heatmap_image(simulated[n], (height, width))])
    titles = ["ground truth", *(name.replace("_", " ") for name in models), "teacher heat map", "simulated heat map"]
    return contact_sheet(rows, titles)


if __name__ == "__main__":
    main()
