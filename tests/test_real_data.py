"""Trainings on real photographs, which take minutes."""

from __future__ import annotations

import hydra
import pytest

from distilpose.cli.paths import CONFIG_DIR
from distilpose.train import fit

QUICK = [
    "logger=none",
    "data.num_workers=0",
    "~callbacks.pictures",
    "~callbacks.health",
    "~callbacks.details",
    "~callbacks.progress",
]


def train(folder, *overrides):
    """Run a training composed as by the train command; returns its last checkpoint and validation metrics."""
    with hydra.initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        cfg = hydra.compose("train", [f"folder={folder}", *QUICK, *overrides])
    trainer = fit(cfg)
    return folder / "checkpoints" / "last.ckpt", {
        name: float(value) for name, value in trainer.callback_metrics.items()
    }


@pytest.mark.slow
def test_a_distilled_student_overfits_eight_persons(shared_data, tmp_path):
    """Training set = validation set: an AP above 0.9 shows that losses, targets, decoding and evaluation agree."""
    coco = ["experiment=overfit", "data=coco", f"data.root={shared_data / 'coco-mini'}", "threads=1"]
    coco += ["data.limit_train=8", "trainer.check_val_every_n_epoch=${trainer.max_epochs}"]
    crisp = ["model=teacher_xs", "loss=heatmap_ce", "method.sigma=1", "trainer.max_epochs=100"]
    teacher, figures = train(tmp_path / "teacher", *crisp, *coco)
    assert figures["val/AP"] > 0.8
    student = ["model=student_xs", "loss=distilpose", f"teacher.checkpoint={teacher}", "trainer.max_epochs=150"]
    _, figures = train(tmp_path / "student", *student, *coco)
    assert figures["val/AP"] > 0.9


@pytest.mark.slow
def test_the_papers_networks_train_on_coco_as_written(shared_data, tmp_path):
    """teacher_stem, then student_s from it, at full size: a step or two of each."""
    coco = ["data=coco", f"data.root={shared_data / 'coco-mini'}", "data.batch_size=2", "data.val_batch_size=4"]
    short = ["trainer.max_epochs=1", "trainer.check_val_every_n_epoch=1", "trainer.limit_train_batches=1"]
    short += ["data.limit_val=4", "trainer.num_sanity_val_steps=0", "method.flip_test=false"]
    teacher, figures = train(tmp_path / "teacher", "model=teacher_stem", *coco, *short)
    assert 0 <= figures["val/AP"] <= 1
    assert figures["train/total_epoch"] > 0
    student = ["model=student_s", f"teacher.checkpoint={teacher}", "teacher.check=false"]
    _, figures = train(tmp_path / "student", *student, *coco, *short)
    assert all(figures[f"train/{term}_epoch"] > 0 for term in ("regression", "visual_token", "keypoint_token", "total"))
