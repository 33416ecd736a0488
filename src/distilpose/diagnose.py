"""Diagnose a distillation: `python -m distilpose.diagnose checkpoint=FILE teacher.checkpoint=FILE`."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from rich.progress import track
from torch import Tensor

from distilpose.cli.command import command
from distilpose.cli.validate_settings import Group
from distilpose.data.annotations import load_annotations
from distilpose.diagnosis.metrics import diagnosis_metrics
from distilpose.diagnosis.plots import draw_diagnosis
from distilpose.diagnosis.predictions import CollectedPredictions, collect_predictions
from distilpose.diagnosis.tables import full, summary
from distilpose.errors import DistilPoseError
from distilpose.evaluation import (
    FlipTest,
    check_finite,
    check_same_joints,
    choose_device,
    people_of,
)
from distilpose.files import check_new_folder, write_json, write_text
from distilpose.losses import DistillationLoss
from distilpose.losses.term_names import WITHOUT_KEYPOINTS, Term
from distilpose.models import load_model
from distilpose.models.checkpoint import read_torch_file
from distilpose.models.remote import local_file
from distilpose.outputs import Predictions
from distilpose.runs.run_of_checkpoint import data_padding
from distilpose.teachers.frozen import floor_of

if TYPE_CHECKING:
    from distilpose.data import CocoDataModule
    from distilpose.models import PoseModel

log = logging.getLogger(__name__)

# name of the setting with the file of each role
SETTINGS = {"student": "checkpoint", "teacher": "teacher.checkpoint", "baseline": "baseline"}
# prefix of the flow's weights in training checkpoints
FLOW = "loss.flow."


class TeacherFile:
    """Teacher of the student.

    Attributes:
        checkpoint: .ckpt or .safetensors of the teacher, for errors and tokens that the student inherited and for the
            gradients of the loss.
    """

    checkpoint: str | Path | None


class DiagnoseSettings:
    """Settings of the diagnose command.

    Attributes:
        checkpoint: student to diagnose, a .ckpt or .safetensors of this package.
        teacher: the student's teacher.
        baseline: another student to compare with, such as one trained without teacher (loss=regression).
        flip_test: average each crop with its mirror image; "released" does it like the published code. Calibration and
            gradients are without flip test.
        device: auto, cpu, cuda or cuda:1.
        output: new folder of diagnosis.json, diagnosis.md and the plots.
    """

    checkpoint: str | Path
    teacher: TeacherFile
    baseline: str | Path | None
    flip_test: FlipTest
    device: str
    output: str | Path
    data: Group
    loss: Group


@command("diagnose", DiagnoseSettings)
def main(cfg: DictConfig) -> dict[str, Any]:
    """Diagnose the student on all validation persons, print the tables, and write tables and plots."""
    output = check_new_folder(cfg.output)
    models = _models(cfg)
    loss = _loss(cfg, models["teacher"]) if "teacher" in models else None
    own = data_padding(local_file(cfg.checkpoint), cfg.data)
    datamodule: CocoDataModule = instantiate(cfg.data, input_size=list(models["student"].input_size), **own)
    datamodule.prepare_data()
    _check_match(cfg, models, datamodule)
    dataset = datamodule.val_dataset()
    people = people_of(load_annotations(dataset.annotations_file, dataset.category_id, dataset.skeleton))
    output.mkdir(parents=True, exist_ok=True)  # fails before the predictions if the folder cannot be written
    batches = track(datamodule.evaluation_dataloader(detections=False), f"{len(dataset)} persons, {len(models)} models")
    collected = collect_predictions(models, batches, cfg.flip_test, loss)
    _check_finite(cfg, collected)
    report = {
        "models": {role: {"name": model.name, "checkpoint": _file(cfg, role)} for role, model in models.items()},
        "annotations": str(dataset.annotations_file),
        "flip_test": cfg.flip_test,
        **diagnosis_metrics(collected, people, models),
    }
    write_json(report, output / "diagnosis.json")
    write_text(full(report), output / "diagnosis.md")
    draw_diagnosis(report, output)
    print(f"\n{summary(report)}\nWritten to {output}")
    return report


def _loss(cfg: DictConfig, teacher: PoseModel) -> DistillationLoss | None:
    """The loss whose gradients are measured; None if all its terms are off."""
    if "likelihood" not in cfg.loss:
        raise DistilPoseError("diagnose measures the gradients of a student's loss: give one such as loss=distilpose.")
    flow = _flow(local_file(cfg.checkpoint)) if cfg.loss.likelihood > 0 else {}
    if cfg.loss.likelihood > 0 and not flow:
        log.warning(f"{cfg.checkpoint} has no flow for the likelihood term: the gradients do not include that term.")
    disabled = dict.fromkeys(WITHOUT_KEYPOINTS, 0) | ({} if flow else {"likelihood": 0})
    if not any({**cfg.loss, **disabled}.get(term) for term in get_args(Term)):
        return None
    loss: DistillationLoss = instantiate(cfg.loss, **disabled)
    if loss.flow is not None:
        loss.flow.load_state_dict(flow)
    loss.set_teacher(floor_of(teacher))
    return loss.to(next(teacher.parameters()).device)  # a likelihood's flow has parameters


def _flow(checkpoint: Path) -> dict[str, Tensor]:
    """Weights of the likelihood's flow. Only training checkpoints have them, .safetensors do not."""
    if checkpoint.suffix == ".safetensors":
        return {}
    state = read_torch_file(checkpoint)["state_dict"]
    return {name.removeprefix(FLOW): weight for name, weight in state.items() if name.startswith(FLOW)}


def _models(cfg: DictConfig) -> dict[str, PoseModel]:
    """The models by role, each of the right kind."""
    device = choose_device(cfg.device)
    models = {role: load_model(file).to(device) for role in SETTINGS if (file := _file(cfg, role)) is not None}
    for role, model in models.items():
        expected = "teacher" if role == "teacher" else "student"
        if model.kind != expected:
            raise DistilPoseError(
                f"{SETTINGS[role]}={_file(cfg, role)} is the {model.kind} {model.name}: give a {expected}."
            )
    return models


def _file(cfg: DictConfig, role: str) -> str | None:
    return OmegaConf.select(cfg, SETTINGS[role], throw_on_missing=True)


def _check_match(cfg: DictConfig, models: Mapping[str, PoseModel], datamodule: CocoDataModule) -> None:
    """Check that all models have the joints of the data, in the same order, the same crop size and, with a warning, padding."""
    size = tuple(models["student"].input_size)
    for role, model in models.items():
        name = f"{SETTINGS[role]}={_file(cfg, role)}"
        check_same_joints(name, model.skeleton, datamodule.val_annotations, datamodule.skeleton)
        if tuple(model.input_size) != size:
            raise DistilPoseError(
                f"{name} takes crops of {tuple(model.input_size)}, the student of {size} "
                "(height, width), so their maps and tokens cannot be compared: give a model with the student's crop size."
            )
        if model.padding not in (None, datamodule.padding):
            log.warning(
                f"{name} was trained with padding {model.padding:g}, but gets crops with {datamodule.padding:g}: its figures "
                "are not those of its own crops."
            )


def _check_finite(cfg: DictConfig, collected: CollectedPredictions) -> None:
    """Raise if a model predicts values that are not finite."""
    targets = collected.targets
    about = (targets.image_id, targets.annotation_id, targets.bbox, targets.bbox[:, 0])
    for role, predictions in collected.roles.items():
        check_finite(Predictions(predictions.image_keypoints, predictions.scores, *about), _file(cfg, role))


if __name__ == "__main__":
    main()
