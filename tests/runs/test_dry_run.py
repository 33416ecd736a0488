"""check=true tries the complete run on a small scale, writes nothing, and estimates time, memory and disk."""

from __future__ import annotations

import re

import pytest
import torch
from lightning import Callback, Trainer
from lightning.pytorch.demos.boring_classes import BoringModel
from lightning.pytorch.utilities import rank_zero_only
from omegaconf import OmegaConf

from distilpose.runs import dry_run

TINY = [
    "data=custom", "data.batch_size=4", "data.num_workers=0", "model=student_xs", "model.depth=1", "model.width=32",
    "model.heads=2", "model.input_size=[64,48]", "scheduler.warmup_steps=0", "loss=regression",
    "trainer.accelerator=cpu", "trainer.max_epochs=30", "trainer.check_val_every_n_epoch=10", "check=true",
]  # fmt: skip
OPTIONS = [
    "callbacks=[ema,early_stopping,diagnosis]",
    "trainer=[deterministic,profile]",
    "trainer.accumulate_grad_batches=2",
]
EXTRAS = [
    pytest.param([], id="plain"),
    pytest.param(OPTIONS, id="options"),
    pytest.param(["logger=tensorboard"], id="tensorboard", marks=pytest.mark.slow),
    pytest.param(
        ["trainer=ddp", "trainer.devices=2", "trainer.sync_batchnorm=false"], id="ddp", marks=pytest.mark.slow
    ),
    pytest.param(["logger=mlflow", "trainer.precision=bf16-mixed"], id="mlflow", marks=pytest.mark.slow),
]


def contents(folder):
    return {path: path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


@pytest.mark.parametrize("extra", EXTRAS)
def test_it_writes_nothing_and_estimates_the_time(run_train, tiny_coco, tmp_path, monkeypatch, extra):
    root = tiny_coco(train=17, val=6)
    before = contents(tmp_path)
    estimate = {}
    monkeypatch.setattr(dry_run, "_print_table", lambda figures, memory: estimate.update(figures))
    status, printed = run_train(*TINY, *extra, f"data.root={root}", "hydra.run.dir=run")
    assert status == 0, printed
    assert contents(tmp_path) == before
    # 24 persons are six batches an epoch, and there are three validations
    steps, validations = 30 * 6 * estimate["seconds_a_step"], 3 * estimate["seconds_a_validation"]
    assert estimate["hours"] == pytest.approx((steps / (2 if "trainer=ddp" in extra else 1) + validations) / 3600)
    assert all(value > 0 for value in estimate.values())


def test_an_ended_run_stays_as_it_is(run_train, tiny_run, tmp_path):
    before = contents(tmp_path)
    status, printed = run_train("resume=run", "check=true")
    assert status == 0, printed
    assert contents(tmp_path) == before


@pytest.mark.slow
def test_a_run_in_a_folder_of_a_long_name_stays_as_it_is(run_train, tiny_coco, tmp_path):
    name = f"a {'long name with spaces ' * 6}of it's own: yes"
    arguments = [*TINY, f"data.root={tiny_coco()}", "logger=none"]
    status, printed = run_train(*arguments, "check=false", "trainer.max_epochs=1", f'hydra.run.dir="{name}"')
    assert status == 0, printed
    before = contents(tmp_path)
    for again in ([*arguments, f'hydra.run.dir="{name}"'], [f'resume="{name}"', "check=true"]):
        status, printed = run_train(*again)
        assert status == 0, printed
        assert contents(tmp_path) == before


class Fails(Callback):
    """A fault that only happens at the end of the first validation."""

    def on_validation_epoch_end(self, trainer, pl_module):
        raise OSError(5, "Input/output error", "the file")


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ([f"+callbacks.fails._target_={__name__}.Fails"], "the file"),
        (["callbacks.checkpoint.monitor=val/APP"], "callbacks.checkpoint.monitor=val/APP"),
        (["hydra.run.dir=/proc/run"], "/proc/run"),
        (["trainer=ddp", "trainer.devices=2"], "trainer.sync_batchnorm=false"),
        (["+trainer.val_check_interval=50"], "trainer.val_check_interval=50 is more than the"),
        (["trainer=limit"], r"trainer\.limit_train_batches=0\.1 of the \d available batches is less than one: give"),
        (["trainer.devices=[0,1]"], "Lightning .*CPUAccelerator"),
        (["+trainer.max_time=soon"], "Lightning .*soon"),
        (
            ["logger=mlflow", "logger.mlflow.tracking_uri=http://127.0.0.1:9"],
            r"logger\.mlflow\.tracking_uri=http://127\.0\.0\.1:9",
        ),
    ],
    ids=["validation", "monitor", "folder", "batch norms", "interval", "share", "list", "time", "tracking"],
)
def test_a_fault_of_the_run_is_found(run_train, tiny_coco, tmp_path, fault, message):
    root = tiny_coco()
    before = contents(tmp_path)
    status, printed = run_train(*TINY, f"data.root={root}", "logger=none", "hydra.run.dir=run", *fault)
    assert status == 1
    assert re.search(message, printed.splitlines()[-1])
    assert "Traceback" not in printed
    assert {path: content for path, content in contents(tmp_path).items() if path.name != "run"} == before


@pytest.mark.parametrize(
    "options",
    [
        {"max_epochs": 7, "check_val_every_n_epoch": 2},
        {"max_epochs": 3, "max_steps": 5},
        {"max_epochs": 9, "max_steps": 3, "accumulate_grad_batches": 3},
        {"overfit_batches": 2},
        {"limit_train_batches": 0.3, "limit_val_batches": 2},
        {"max_epochs": 4, "val_check_interval": 0.25, "check_val_every_n_epoch": 2},
        {"max_steps": 9, "val_check_interval": 3},
        {"max_epochs": 5, "val_check_interval": 12, "check_val_every_n_epoch": None},
    ],
    ids=str,
)
def test_the_estimate_counts_batches_as_lightning_does(options):
    counts = {"train": 0, "val": 0, "validations": 0}

    class Counts(Callback):
        def on_train_batch_end(self, *args):
            counts["train"] += 1

        def on_validation_batch_end(self, *args):
            counts["val"] += 1

        def on_validation_start(self, *args):
            counts["validations"] += 1

    usual = {"max_epochs": 2, "check_val_every_n_epoch": 1, "accumulate_grad_batches": 1, "devices": 1}
    settings = {**usual, "limit_train_batches": None, "limit_val_batches": None, "accelerator": "cpu", **options}
    loaders = [torch.utils.data.DataLoader(torch.zeros(8, 32)), torch.utils.data.DataLoader(torch.zeros(3, 32))]
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "num_sanity_val_steps": 0}
    Trainer(**settings, **quiet, enable_model_summary=False, callbacks=[Counts()]).fit(BoringModel(), *loaders)
    cfg = OmegaConf.create({"trainer": settings})
    validations, batches = dry_run._counts(cfg, dry_run._batches(cfg, "train", loaders[0]))
    assert (validations, batches) == (counts["validations"], counts["train"])
    assert validations * dry_run._batches(cfg, "val", loaders[1]) == counts["val"]


def test_the_estimate_knows_max_time_and_the_number_of_persons(run_train, tiny_coco, monkeypatch):
    estimate = {}
    monkeypatch.setattr(dry_run, "_print_table", lambda figures, memory: estimate.update(figures))
    settings = ["+trainer.max_time=00:00:00:36", "trainer.max_epochs=1000000", "trainer.accumulate_grad_batches=100"]
    status, printed = run_train(
        *TINY, *settings, f"data.root={tiny_coco(train=17)}", "logger=none", "hydra.run.dir=run"
    )
    assert status == 0, printed
    assert estimate["hours"] == pytest.approx(0.01)
    assert estimate["effective_batch"] == 24


@pytest.mark.parametrize(("steps", "warned"), [(180, True), (179, False)])
def test_a_warm_up_over_the_complete_run_is_a_warning(run_train, tiny_coco, steps, warned):
    arguments = [*TINY, f"data.root={tiny_coco(train=17, val=6)}", f"scheduler.warmup_steps={steps}", "logger=none"]
    status, printed = run_train(*arguments, "hydra.run.dir=run")
    assert status == 0, printed
    assert ("scheduler.warmup_steps=180" in printed and "180 steps" in printed) == warned


def test_only_rank_zero_prints(monkeypatch, capsys):
    times = ("seconds_a_batch_read", "seconds_a_step", "seconds_a_validation", "hours")
    figures = dict.fromkeys((*times, "effective_batch", "memory_gib", "disk_gib"), 1.0)
    for rank in (0, 1):
        monkeypatch.setattr(rank_zero_only, "rank", rank)
        dry_run._print_table(figures, "memory")
        assert ("the complete run" in capsys.readouterr().out) == (rank == 0)


def test_a_damaged_picture_of_the_validation_is_found(run_train, tiny_coco):
    root = tiny_coco()
    picture = sorted((root / "val").iterdir())[0]
    picture.write_bytes(picture.read_bytes()[:300])
    status, printed = run_train(*TINY, f"data.root={root}", "logger=none", "hydra.run.dir=run")
    assert status == 1
    assert picture.name in printed.splitlines()[-1]


def test_too_little_free_disk_is_an_error(run_train, tiny_coco, monkeypatch):
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr(dry_run.shutil, "disk_usage", lambda path: usage)
    status, printed = run_train(*TINY, f"data.root={tiny_coco()}", "logger=none", "hydra.run.dir=run")
    assert status == 1
    assert all(fact in printed for fact in ("run has 0.0 GiB", "hydra.run.dir"))


@pytest.mark.slow
def test_the_run_needs_no_more_disk_than_estimated(run_train, tiny_coco, tmp_path, monkeypatch):
    estimate = {}
    monkeypatch.setattr(dry_run, "_print_table", lambda figures, memory: estimate.update(figures))
    run = [*TINY, f"data.root={tiny_coco()}", "logger=none", "hydra.run.dir=run", "trainer.max_epochs=4"]
    run += ["trainer.check_val_every_n_epoch=2", "callbacks=ema"]
    assert run_train(*run)[0] == 0
    assert run_train(*run, "check=false")[0] == 0
    written = sum(path.stat().st_size for path in (tmp_path / "run").rglob("*") if path.is_file()) / 2**30
    assert 0.5 * estimate["disk_gib"] < written < 1.1 * estimate["disk_gib"]
