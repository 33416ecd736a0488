"""check=true does all that a run does on a small scale, writes nothing, and tells what the run will take."""

from __future__ import annotations

import re

import pytest
from lightning import Callback

from distilpose import dry_run

TINY = [
    "data=custom", "data.batch_size=4", "data.num_workers=0", "model=student_xs", "model.depth=1", "model.width=32",
    "model.heads=2", "model.input_size=[64,48]", "scheduler.warmup_steps=0", "loss=regression",
    "trainer.accelerator=cpu", "trainer.max_epochs=30", "trainer.check_val_every_n_epoch=10", "check=true",
]  # fmt: skip
EXTRAS = [
    [],
    [
        "callbacks=[ema,early_stopping,diagnosis]",
        "trainer=[deterministic,profile]",
        "trainer.accumulate_grad_batches=2",
    ],
    ["logger=tensorboard"],
    ["trainer=ddp", "trainer.devices=2", "trainer.sync_batchnorm=false"],
    ["logger=mlflow", "trainer.precision=bf16-mixed"],
]


def everything(folder):
    return {path: path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


@pytest.mark.parametrize("extra", EXTRAS, ids=["plain", "options", "tensorboard", "ddp", "mlflow"])
def test_it_writes_nothing_and_tells_the_time(run_train, tiny_coco, tmp_path, monkeypatch, extra):
    root = tiny_coco(train=17, val=6)
    before = everything(tmp_path)
    found = {}
    monkeypatch.setattr(dry_run, "_tell", lambda cfg, figures, memory: found.update(figures))
    status, told = run_train(*TINY, *extra, f"data.root={root}", "hydra.run.dir=run")
    assert status == 0, told
    assert everything(tmp_path) == before
    # 24 persons are six batches an epoch, and there are three validations
    steps, validations = 30 * 6 * found["seconds_a_step"], 3 * found["seconds_a_validation"]
    assert found["hours"] == pytest.approx((steps / (2 if "trainer=ddp" in extra else 1) + validations) / 3600)
    assert all(value > 0 for value in found.values())


@pytest.mark.parametrize("name", ["run", f"a {'long name with spaces ' * 6}of it's own: yes"], ids=["short", "long"])
def test_a_run_that_is_there_stays_as_it_is(run_train, tiny_coco, tmp_path, name):
    arguments = [*TINY, f"data.root={tiny_coco()}", "logger=none"]
    status, told = run_train(*arguments, "check=false", "trainer.max_epochs=1", f'hydra.run.dir="{name}"')
    assert status == 0, told
    before = everything(tmp_path)
    for again in ([*arguments, f'hydra.run.dir="{name}"'], [f'resume="{name}"', "check=true"]):
        status, told = run_train(*again)
        assert status == 0, told
        assert everything(tmp_path) == before


class Fails(Callback):
    """A fault that only shows when the first validation is over."""

    def on_validation_epoch_end(self, trainer, pl_module):
        raise OSError(5, "Input/output error", "the projector")


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (["loss=distilpose", "teacher.checkpoint=absent.ckpt"], "absent.ckpt"),
        ([f"+callbacks.fails._target_={__name__}.Fails"], "Cannot use 'the projector': Input/output error"),
        (["callbacks.checkpoint.monitor=val/APP"], "Lightning cannot train with these settings .*val/APP"),
        (["trainer.accelerator=gpu", "trainer.devices=8"], "asks for 8 GPUs but this machine has"),
        (["hydra.run.dir=/proc/run"], "/proc/run"),
        (["trainer=ddp", "trainer.devices=2"], "trainer.sync_batchnorm=false"),
        (["+trainer.val_check_interval=50"], "trainer.val_check_interval=50 is more than the"),
        (["lr_find=true"], "check=true and lr_find=true are two questions"),
    ],
    ids=["teacher", "validation", "monitor", "devices", "folder", "batch norms", "interval", "rate"],
)
def test_what_would_fail_later_fails_now(run_train, tiny_coco, tmp_path, fault, message):
    root = tiny_coco()
    before = everything(tmp_path)
    status, told = run_train(*TINY, f"data.root={root}", "logger=none", "hydra.run.dir=run", *fault)
    assert status == 1
    assert re.search(message, told.splitlines()[-1])
    assert "Traceback" not in told
    assert {path: content for path, content in everything(tmp_path).items() if path.name != "run"} == before


def test_a_damaged_picture_of_the_validation_is_found(run_train, tiny_coco):
    root = tiny_coco()
    picture = sorted((root / "val").iterdir())[0]
    picture.write_bytes(picture.read_bytes()[:300])
    status, told = run_train(*TINY, f"data.root={root}", "logger=none", "hydra.run.dir=run")
    assert status == 1
    assert picture.name in told.splitlines()[-1]


def test_a_disk_without_room_is_told(run_train, tiny_coco, monkeypatch):
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr(dry_run.shutil, "disk_usage", lambda path: usage)
    status, told = run_train(*TINY, f"data.root={tiny_coco()}", "logger=none", "hydra.run.dir=run")
    assert status == 1
    assert "has room for 0.0 GiB and the run will write about" in told


def test_the_run_needs_no_more_disk_than_was_told(run_train, tiny_coco, tmp_path, monkeypatch):
    found = {}
    monkeypatch.setattr(dry_run, "_tell", lambda cfg, figures, memory: found.update(figures))
    run = [*TINY, f"data.root={tiny_coco()}", "logger=none", "hydra.run.dir=run", "trainer.max_epochs=4"]
    run += ["trainer.check_val_every_n_epoch=2", "callbacks=ema"]
    assert run_train(*run)[0] == 0
    assert run_train(*run, "check=false")[0] == 0
    written = sum(path.stat().st_size for path in (tmp_path / "run").rglob("*") if path.is_file()) / 2**30
    assert 0.5 * found["disk_gib"] < written < 1.1 * found["disk_gib"]
