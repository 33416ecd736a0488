"""The train command with each kind of teacher that runs a foreign network, and its resumption."""

from __future__ import annotations

import json

import dots
import pytest
from vitposes import small_vitpose

from distilpose.callbacks.metrics_table import read_table

TINY = [
    "data=custom", "data.batch_size=4", "data.num_workers=0", "augmentation=none", "model=student_xs", "model.depth=1",
    "model.width=48", "model.heads=2", "scheduler.warmup_steps=0", "logger=none", "trainer.accelerator=cpu",
    "trainer.num_sanity_val_steps=0", "trainer.check_val_every_n_epoch=1", "~callbacks.pictures", "~callbacks.health",
    "~callbacks.details",
]  # fmt: skip
MAPS = ["loss=simulated_heatmap_confidence"]
TOKENS = ["loss=distilpose", "loss.visual_token=0.05", "loss.keypoint_token=0", "loss.project_tokens=true"]
FACE = "joints=[nose,left_eye,right_eye]"


def teacher_of(kind: str, folder, group: str = "teacher") -> list[str]:
    """Overrides that choose a teacher, and its files."""
    chosen = f"teacher={kind}" if group == "teacher" else f"teacher@{group}={kind}"
    if kind == "several":
        parts = [("module", "first"), ("vitpose", "second")]
        return [chosen, *(word for part, name in parts for word in teacher_of(part, folder, f"teacher.{name}"))]
    if kind == "onnx":
        file = dots.export_onnx(dots.build(), folder / "dots.onnx", names=["maps"])
        settings = [f"file={file}", FACE]
    elif kind == "module":
        settings = ["target=dots.build", FACE]
    else:
        small_vitpose().save_pretrained(folder / "vitpose")
        settings = [f"name={folder / 'vitpose'}"]
    return [chosen, *(f"{group}.{setting}" for setting in [*settings, "check=false"])]


def about_is_complete(kind: str, about) -> bool:
    """Whether environment.json says what the teacher was."""
    if kind == "several":
        return about_is_complete("module", about["first"]) and about_is_complete("vitpose", about["second"])
    if kind == "onnx":
        return [len(digest) for digest in about["files"].values()] == [64]
    return about["target"] == "dots.build" if kind == "module" else len(about["sha256"]) == 64


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["vitpose", "onnx", "module", "several"])
def test_a_training_is_resumed_bit_for_bit(trained_by, run_train, assert_same_end, tmp_path, kind):
    loss = TOKENS if kind in ("vitpose", "several") else MAPS
    teach = trained_by([*TINY, *loss, *teacher_of(kind, tmp_path)])
    whole = teach("whole", "trainer.max_epochs=6")
    halves = teach("halves", "trainer.max_epochs=3")
    status, printed = run_train(f"resume={halves}", "trainer.max_epochs=6")
    assert status == 0, printed
    assert_same_end(halves, whole)
    assert about_is_complete(kind, json.loads((whole / "environment.json").read_text())["started"]["teacher"])
    first, *_, last = read_table(whole / "metrics.csv")
    assert first["train/simulated_heatmap"] > 0
    assert last["train/total"] < first["train/total"]
    if loss is TOKENS:
        assert last["train/visual_token"] < first["train/visual_token"]
