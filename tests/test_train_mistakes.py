"""What a person can get wrong in starting a training, each told in one sentence."""

from __future__ import annotations

import pytest
import torch

from distilpose import create_model
from distilpose.models import save_model

TINY = ["data=custom", "data.num_workers=0", "model.depth=1", "model.width=32", "model.heads=2", "logger=none"]
ALONE = ["model=student_xs", "loss=regression"]


def mistakes(root, tmp_path):
    student = save_model(create_model("student_xs", depth=1, width=32, heads=2), tmp_path / "student.safetensors")
    teacher = save_model(create_model("teacher_xs", depth=1, width=32, heads=2), tmp_path / "teacher.safetensors")
    (tmp_path / "file").write_text("no folder")
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "config.yaml").write_text("model: another\n")
    tiny = [*TINY, f"data.root={root}"]
    return {
        "COCO absent": (["loss=regression"], "Data folder data/coco does not exist: name your folder with data.root"),
        "too few devices": (
            ["model=student_l", "trainer.devices=8"],
            "trainer.devices=8 asks for 8 GPUs but this machine",
        ),
        "no teacher": ([*tiny, "model=student_xs"], "A distillation needs a teacher but teacher.checkpoint is not set"),
        "absent teacher": (
            [*tiny, "model=student_xs", "teacher.checkpoint=absent.ckpt"],
            "absent.ckpt is not a file",
        ),
        "student as teacher": (
            [*tiny, "model=student_xs", f"teacher.checkpoint={student}"],
            "holds the student student_xs",
        ),
        "untrained teacher": (
            [*tiny, "model=student_xs", f"teacher.checkpoint={teacher}", "trainer.max_epochs=1"],
            "pass teacher.check=false",
        ),
        "misspelt value": (["trainer.max_epoch=3"], "trainer.max_epoch is not known: did you mean trainer.max_epochs?"),
        "misspelt choice": (["model=student_m"], "model=student_m is not known: expected one of"),
        "unwritable folder": ([*tiny, *ALONE, "hydra.run.dir=file/run"], "Cannot use "),
        "taken folder": (
            [*tiny, *ALONE, "hydra.run.dir=taken"],
            "is there but no checkpoint, as after a run",
        ),
        "resuming no run": (["resume=taken"], "resume=taken holds no config.yaml with an intact checkpoint"),
        "absent weights": ([*tiny, *ALONE, "weights=absent.ckpt"], "absent.ckpt is not a file"),
        "crop that does not divide": ([*tiny, *ALONE, "model.input_size=[65,48]"], "input_size 65 x 48"),
        "no batch": ([*tiny, *ALONE, "data.batch_size=0"], "data.batch_size=0 must be a whole number of at least 1."),
        "word for a number": (
            [*tiny, *ALONE, "optimizer.lr=fast"],
            "optimizer.lr=fast must be a number of at least 0.",
        ),
        "one side of a crop": ([*tiny, *ALONE, "model.input_size=256"], "input_size=256 must be two positive whole"),
        "seed out of range": (
            [*tiny, *ALONE, "seed=-1"],
            "seed=-1 must be a whole number of at least 0 and of at most",
        ),
        "unknown metric": ([*tiny, *ALONE, "data.monitor=val/oks"], "data.monitor=val/oks is no metric of this data"),
        "unknown precision": (
            [*tiny, *ALONE, "trainer.precision=bf61"],
            "Lightning's Trainer does not take its settings",
        ),
        "negative rate": (
            [*tiny, *ALONE, "+optimizer.betas=[2,2]"],
            "The optimizer or the scheduler does not take its",
        ),
        "divergence": (
            [*tiny, *ALONE, "optimizer.lr=1e30", "scheduler.warmup_steps=0", "trainer.max_epochs=9"],
            "the training diverged, so lower optimizer.lr",
        ),
        "no accumulated batch": (
            [*tiny, *ALONE, "trainer.accumulate_grad_batches=0"],
            "trainer.accumulate_grad_batches=0 must be a whole number of at least 1.",
        ),
        "half a batch": (
            [*tiny, *ALONE, "trainer.accumulate_grad_batches=2.5"],
            "trainer.accumulate_grad_batches=2.5 must be a whole number of at least 1.",
        ),
        "no reference": ([*tiny, *ALONE, "scale_lr=true", "reference_batch=0"], "reference_batch=0 must be a whole"),
        "negative clipping": (
            [*tiny, *ALONE, "trainer.gradient_clip_val=-1"],
            "trainer.gradient_clip_val=-1 must be a number of at least 0.",
        ),
        "word for a limit": (
            [*tiny, *ALONE, "trainer.limit_train_batches=abc"],
            "trainer.limit_train_batches=abc must be",
        ),
        "no batches": (
            [*tiny, *ALONE, "trainer.limit_train_batches=0"],
            "limit_train_batches=0 must be a number above 0",
        ),
        "no validation": (
            [*tiny, *ALONE, "trainer.limit_val_batches=0"],
            "limit_val_batches=0 must be a number above 0",
        ),
        "no end": (
            [*tiny, *ALONE, "trainer.max_epochs=null", "+trainer.max_steps=8"],
            "trainer.max_epochs=null must be a whole number of at least 1: +trainer.max_steps=N beside it",
        ),
        "no step": (
            [*tiny, *ALONE, "+trainer.max_steps=0"],
            "trainer.max_steps=0 must be a whole number of at least 1",
        ),
        "words for nodes": ([*tiny, *ALONE, "trainer.num_nodes=abc"], "trainer.num_nodes=abc must be a whole number"),
        "warm-up of words": (
            [*tiny, *ALONE, "scheduler.warmup_steps=abc"],
            "scheduler.warmup_steps=abc must be a whole",
        ),
        "impatience": (
            [*tiny, *ALONE, "callbacks=early_stopping", "callbacks.early_stopping.patience=-1"],
            "callbacks.early_stopping.patience=-1 must be a whole number of at least 0.",
        ),
        "an end by no metric": (
            [*tiny, *ALONE, "callbacks=early_stopping", "callbacks.early_stopping.monitor=val/foo"],
            "callbacks.early_stopping.monitor=val/foo is no metric of this data: expected val/PCK",
        ),
        "interval beyond the epoch": (
            [*tiny, *ALONE, "+trainer.val_check_interval=50", "trainer.accelerator=cpu"],
            "Lightning cannot train with these settings",
        ),
        "frozen by a word": ([*tiny, *ALONE, "method.frozen=backbone"], "method.frozen=backbone must be a list"),
        "loss of a teacher": ([*tiny, "model=student_xs", "loss=heatmap_mse"], "HeatmapMSE trains teachers"),
    }


@pytest.mark.parametrize("kind", [
    "COCO absent", "too few devices", "no teacher", "absent teacher", "student as teacher", "untrained teacher",
    "misspelt value", "misspelt choice", "unwritable folder", "taken folder", "resuming no run", "absent weights",
    "crop that does not divide", "loss of a teacher", "no batch", "word for a number", "one side of a crop",
    "seed out of range", "unknown metric", "unknown precision", "negative rate", "divergence", "no accumulated batch",
    "half a batch", "no reference", "negative clipping", "word for a limit", "words for nodes", "warm-up of words",
    "impatience", "an end by no metric", "interval beyond the epoch", "frozen by a word",
    "no batches", "no validation", "no end", "no step",
])  # fmt: skip
def test_mistakes_are_one_sentence(run_train, tiny_coco, tmp_path, monkeypatch, kind):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    arguments, message = mistakes(tiny_coco(train=2, val=3), tmp_path)[kind]
    status, told = run_train(*arguments)
    assert status == 1
    sentence = told.splitlines()[-1]
    assert sentence.startswith("error: ")
    assert message in sentence
    assert "Traceback" not in told
    assert "Error executing job" not in told
    assert (tmp_path / "taken" / "config.yaml").read_text() == "model: another\n"
    assert (tmp_path / "file").read_text() == "no folder"


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_cut_off_photograph_is_one_sentence_from_a_loading_process_too(run_train, tiny_coco, tmp_path, split):
    root = tiny_coco(train=2, val=3)
    photo = root / split / "000001.jpg"
    photo.write_bytes(photo.read_bytes()[:500])
    arguments = [*TINY, *ALONE, f"data.root={root}", "data.num_workers=1", "trainer.max_epochs=1"]
    status, told = run_train(*arguments, "model.input_size=[64,48]", "trainer.accelerator=cpu", "hydra.run.dir=run")
    assert status == 1
    (sentence,) = [line for line in told.splitlines() if "error: " in line]
    assert sentence.endswith(
        f"error: Image {photo} is cut off or no image OpenCV can read (500 bytes): fetch it again."
    )
    assert "Traceback" not in told
    assert not (tmp_path / "run" / "config.yaml").exists()
