"""Tests that need real processes: a kill, two processes of one training, a multirun, the last error message."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time

import pytest
import torch
import yaml
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from lightning import Callback
from offline import closed_file
from processes import finish, start
from wandb_offline import read_logged

from distilpose import evaluate, train
from distilpose.callbacks.metrics_table import read_table
from distilpose.cli.paths import CONFIG_DIR

pytestmark = pytest.mark.slow

TINY = [
    "data=custom", "data.batch_size=4", "data.num_workers=0", "augmentation=none", "loss=regression", "model.depth=1",
    "model.width=32", "model.heads=2", "model.input_size=[64,48]", "scheduler.warmup_steps=0", "optimizer.lr=5e-3",
    "trainer.accelerator=cpu", "trainer.check_val_every_n_epoch=1", "trainer.num_sanity_val_steps=0",
]  # fmt: skip
UNDRAWN = ["~callbacks.pictures", "~callbacks.health", "~callbacks.details"]


def test_a_killed_training_resumes_by_the_same_command_and_ends_the_same(tiny_coco, tmp_path, monkeypatch):
    settings = [*TINY, *UNDRAWN, f"data.root={tiny_coco(train=200)}", "model=student_xs", "logger=none"]
    settings += ["trainer.max_epochs=3", "resume=auto"]
    process = start(tmp_path, *settings, "hydra.run.dir=run")
    folder, deadline = tmp_path / "run", time.monotonic() + 400
    try:
        while not (folder / "checkpoints" / "last.ckpt").is_file():
            assert process.poll() is None, process.communicate()[1]
            assert time.monotonic() < deadline
            time.sleep(0.05)
        time.sleep(0.5)  # an epoch takes seconds: this is in the middle of the second
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == -9
    (first,) = read_table(folder / "metrics.csv")
    assert first["epoch"] == 0
    assert not [path.name for path in folder.rglob(".*")]
    assert torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["epoch"] == 0

    monkeypatch.chdir(tmp_path)
    for place in ("run", "whole", "run"):  # the third command finds a finished run
        monkeypatch.setattr(sys, "argv", ["train", *settings, f"hydra.run.dir={place}"])
        GlobalHydra.instance().clear()
        train.main()
    rows, reference = (read_table(tmp_path / place / "metrics.csv") for place in ("run", "whole"))
    assert rows[0] == first
    for row in (*rows, *reference):
        del row["seconds"]
    assert rows == reference
    assert [row["epoch"] for row in rows] == [0, 1, 2]


def test_two_processes_evaluate_as_one(tiny_coco, tmp_path):
    root = tiny_coco(train=12)
    persons = len(json.loads((root / "annotations" / "val.json").read_text())["annotations"])
    assert persons % 2 == 1
    settings = [*TINY, f"data.root={root}", "model=student_xs", "logger=none", "data.monitor=val/AP"]
    two = ["trainer.devices=2", "trainer.strategy=ddp", "trainer.max_epochs=10", "trainer.check_val_every_n_epoch=5"]
    status, _, err = finish(start(tmp_path, *settings, *two, "hydra.run.dir=run"))
    assert status == 0, err
    assert err.count("Effective batch 8 ") == 1
    folder = tmp_path / "run"
    assert [row["epoch"] for row in read_table(folder / "metrics.csv")] == list(range(10))
    assert len(list((folder / "pictures").iterdir())) == 4
    last = json.loads((folder / "metrics.json").read_text())["last"]
    overrides = ["data=custom", f"data.root={root}", "data.num_workers=0", "device=cpu", "flip_test=true"]
    with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        checkpoint = folder / "checkpoints" / "last.ckpt"
        cfg = compose("evaluate", [*overrides, f"checkpoint={checkpoint}", f"output={tmp_path / 'scored'}"])
    (row,) = evaluate.main.__wrapped__(cfg)["rows"]
    assert row["persons"] == persons
    for name in ("AP", "AP50", "AR", "PCK"):
        assert last[f"val/{name}"] == pytest.approx(row[name], abs=1e-6), name
    assert row["PCK"] > 0.2


class SendSignal(Callback):
    """Sends a signal to the second process, at the epoch and batch in the environment variable SIGNAL_AT."""

    def _send(self, trainer, batch, place):
        number, epoch, index, where = os.environ.get("SIGNAL_AT", "0 0 0 nowhere").split()
        if trainer.global_rank == 1 and (trainer.current_epoch, batch, place) == (int(epoch), int(index), where):
            os.kill(os.getpid(), int(number))

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self._send(trainer, batch_idx, "training")

    def on_validation_batch_start(self, trainer, pl_module, batch, batch_idx, dataloader_idx=0):
        self._send(trainer, batch_idx, "validation")


def test_two_processes_are_preempted_together_and_resume_to_the_same_end_as_those_of_torchrun(
    tiny_coco, tmp_path, monkeypatch, assert_same_end
):
    """Only the second process gets the signal: first in an epoch, then in a validation with unequal numbers of batches.

    The processes of torchrun, which are not interrupted, reach the same end.
    """
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))  # for this file, and what it imports
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    settings = [*TINY, *UNDRAWN, f"data.root={tiny_coco(train=17, val=4)}", "data.val_batch_size=2", "model=student_xs"]
    settings += ["logger=none", "callbacks=ema", "callbacks.ema.decay=0.9", "resume=auto", "trainer.max_epochs=2"]
    settings += ["+callbacks.signal._target_=test_train_processes.SendSignal", "data.num_workers=1"]
    settings += ["trainer.devices=2", "trainer.strategy=ddp"]
    signals = {
        "10 0 1 training": (138, "2 of 3 batches"),
        "15 1 0 validation": (143, "validation of epoch 1"),
    }
    for moment, (expected, text) in signals.items():
        monkeypatch.setenv("SIGNAL_AT", moment)
        status, _, err = finish(start(tmp_path, *settings, "hydra.run.dir=run"))
        assert status == expected, err
        assert err.count("Stopped by SIG") == 1
        assert text in err
        assert "Traceback" not in err
    monkeypatch.delenv("SIGNAL_AT")
    status, _, err = finish(start(tmp_path, *settings, "hydra.run.dir=run"))
    assert status == 0, err
    torchrun = ["torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "distilpose.train"]
    command = [sys.executable, "-m", *torchrun, *settings, "hydra.run.dir=torchrun"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, timeout=420)
    assert done.returncode == 0, done.stderr.decode()
    assert_same_end(tmp_path / "run", tmp_path / "torchrun")


@pytest.mark.parametrize("rate", [0, 5e-3])
def test_any_number_of_processes_trains_and_evaluates_alike(tiny_coco, tmp_path, rate):
    """Layer norms in place of batch norms, whose statistics over all processes need GPUs (trainer=ddp)."""
    root = tiny_coco(train=17, val=4)
    assert len(json.loads((root / "annotations" / "val.json").read_text())["annotations"]) == 5
    settings = [
        *TINY,
        *UNDRAWN,
        f"data.root={root}",
        "logger=none",
        "model=student_timm",
        "model.backbone=convnext_atto",
    ]
    settings += [f"optimizer.lr={rate}", f"trainer.max_epochs={2 if rate else 1}", "data.val_batch_size=2"]
    tables = []
    for processes in (1, 2) if rate else (1, 3):
        arguments = [f"data.batch_size={6 // processes}", f"trainer.devices={processes}", "trainer.strategy=ddp"]
        status, _, err = finish(start(tmp_path, *settings, *arguments, f"hydra.run.dir=run{processes}"))
        assert status == 0, err
        tables.append(read_table(tmp_path / f"run{processes}" / "metrics.csv"))
    one = tables[0]
    for row, alone in [pair for table in tables[1:] for pair in zip(table, one, strict=True)]:
        assert row.keys() == alone.keys()
        for name in row.keys() - {"seconds"}:
            # figures of the same weights are equal to the last bit; sums of gradients are taken in another order
            exact = name.startswith("val/") and not rate
            near = pytest.approx(alone[name], abs=0 if exact else 1e-2 if name.startswith("val/") else 1e-5)
            assert row[name] == (alone[name] if exact else near), name
    assert one[0]["val/PCK"] > 0 or rate


def test_a_multirun_has_a_folder_and_a_wandb_run_for_each(run_train, tiny_coco, tmp_path):
    settings = [*TINY, f"data.root={tiny_coco()}", "trainer.max_epochs=1", "+trainer.limit_train_batches=1"]
    arguments = ["-m", "model=student_s,student_xs", *settings, "~callbacks.health", "hydra.sweep.dir=sweep"]
    status, err = run_train(*arguments)
    assert status == 0, err
    folders = sorted(path for path in (tmp_path / "sweep").iterdir() if path.is_dir())
    assert [path.name for path in folders] == ["0_student_s", "1_student_xs"]
    identities = set()
    for folder, name in zip(folders, ("student_s", "student_xs"), strict=True):
        assert yaml.safe_load((folder / "config.yaml").read_text())["model"]["name"] == name
        assert len(read_table(folder / "metrics.csv")) == 1
        assert (folder / "checkpoints" / "last.ckpt").is_file()
        (run,) = (folder / "wandb").glob("offline-run-*")
        (record,) = run.glob("*.wandb")
        assert record.stat().st_size > 1000
        identities.add(record.stem)
    assert len(identities) == 2


def test_concurrent_jobs_of_two_processes_each_have_their_own(tiny_coco, tmp_path, monkeypatch):
    """And are one group in W&B, though each is a separate command outside Hydra's multirun."""
    monkeypatch.setenv("MASTER_PORT", "29517")  # left by an earlier training; two concurrent jobs cannot share it
    settings = [*TINY, *UNDRAWN, f"data.root={tiny_coco()}", "model=student_xs", "trainer.max_epochs=1"]
    settings.append("logger.wandb.mode=offline")
    two = ["trainer.devices=2", "trainer.strategy=ddp", "seed=0,1", "hydra.sweep.dir=sweep", "launcher=local"]
    status, _, err = finish(start(tmp_path, "-m", *settings, *two, "hydra.sweep.subdir=seed${seed}"))
    assert status == 0, err
    for seed in (0, 1):
        folder = tmp_path / "sweep" / f"seed{seed}"
        assert yaml.safe_load((folder / "config.yaml").read_text())["seed"] == seed
        assert len(read_table(folder / "metrics.csv")) == 1
        assert (folder / "checkpoints" / "last.ckpt").is_file()
        run = read_logged(closed_file(folder))
        assert (run.group, run.job_type, run.tags) == ("sweep", "sweep", ["sweep"])
        assert run.config["seed"] == seed
        assert (run.config["environment"]["sweep"], run.config["environment"]["processes"]) == ("sweep", 2)


def test_an_error_message_is_the_only_output(tmp_path):
    status, out, err = finish(start(tmp_path, "model=student_l", "trainer.devices=8", "trainer.accelerator=gpu"))
    if torch.cuda.device_count() >= 8:
        pytest.skip("this machine has the eight GPUs")
    assert status == 1
    assert out == ""
    (message,) = err.splitlines()
    assert message.startswith("error: ")
    assert "trainer.devices=8" in message


def test_two_processes_that_show_a_part_of_the_persons(tiny_coco, tmp_path):
    """Metrics are over the persons of both processes, and the row says how many these are."""
    settings = [*TINY, *UNDRAWN, f"data.root={tiny_coco(train=10, val=10)}", "model=student_xs", "logger=none"]
    settings += ["trainer.max_epochs=1", "trainer.devices=2", "trainer.strategy=ddp"]
    settings += ["data.val_batch_size=3", "trainer.limit_val_batches=1", "hydra.run.dir=run"]
    process = start(tmp_path, *settings)
    status, _, stderr = finish(process)
    assert status == 0, stderr
    (row,) = read_table(tmp_path / "run" / "metrics.csv")
    assert row["val/persons"] == 6
    assert stderr.count("The validation's metrics are on 6 of ") == 1
