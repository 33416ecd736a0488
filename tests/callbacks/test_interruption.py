"""A run that a signal stops between two steps, or in a validation, ends bit for bit as one that was let alone."""

from __future__ import annotations

import os
import signal

import pytest
import torch
from lightning import Callback

from distilpose import train
from distilpose.callbacks.metrics_table import read_table

TINY = [
    "data=custom", "data.batch_size=4", "data.num_workers=0", "model=student_xs", "model.depth=1", "model.width=32",
    "model.heads=2", "model.input_size=[64,48]", "scheduler.warmup_steps=0", "optimizer.lr=5e-3", "loss=regression",
    "trainer.accelerator=cpu", "trainer.num_sanity_val_steps=0", "logger=none", "~callbacks.pictures", "~callbacks.health",
    "trainer.max_epochs=3", "trainer.check_val_every_n_epoch=1", "resume=auto",
]  # fmt: skip
EMA = ["callbacks=ema", "callbacks.ema.decay=0.9"]


class Kill(Callback):
    """Sends this process a signal in a batch of an epoch, or in its validation."""

    def __init__(self, number: int, epoch: int, batch: int, validation: bool = False):
        self.number, self.place, self.validation = number, (epoch, batch), validation

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if not self.validation and (trainer.current_epoch, batch_idx) == self.place:
            os.kill(os.getpid(), self.number)

    def on_validation_batch_start(self, trainer, pl_module, batch, batch_idx, dataloader_idx=0):
        if self.validation and (trainer.current_epoch, batch_idx) == self.place:
            os.kill(os.getpid(), self.number)


@pytest.fixture
def run_killed(run_train, monkeypatch):
    """Runs the train command with a signal to itself."""

    def call(kill: Kill, *arguments: str) -> tuple[int, str]:
        build = train.build_trainer

        def with_kill(cfg):
            trainer = build(cfg)
            trainer.callbacks.insert(0, kill)
            return trainer

        with monkeypatch.context() as patch:
            patch.setattr(train, "build_trainer", with_kill)
            return run_train(*arguments)

    return call


def same(one, other):
    if torch.is_tensor(one):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other


def ending(folder):
    """What a run ends with: its table without times, and all of its last checkpoint but how its loops were counted."""
    rows = read_table(folder / "metrics.csv")
    for row in rows:
        del row["seconds"]
    content = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    return rows, {key: value for key, value in content.items() if key not in ("loops", "callbacks")}


@pytest.mark.parametrize(
    ("extra", "interruptions"),
    [
        ([], [(signal.SIGTERM, 1, 2), (signal.SIGUSR1, 2, 0)]),
        ([], [(signal.SIGUSR2, 0, 5), (signal.SIGTERM, 1, 0, True)]),
        ([*EMA, "data.num_workers=2", "trainer.accumulate_grad_batches=2"], [(signal.SIGTERM, 1, 1), (signal.SIGTERM, 2, 4)]),
        (["augmentation=released"], [(signal.SIGTERM, 1, 5, False), (signal.SIGTERM, 2, 4)]),
    ],
)  # fmt: skip
def test_it_ends_as_if_it_had_been_let_alone(run_train, run_killed, tiny_coco, tmp_path, extra, interruptions):
    settings = [*TINY, "augmentation=none", *extra, f"data.root={tiny_coco(train=17, val=6)}"]
    status, told = run_train(*settings, "hydra.run.dir=whole")
    assert status == 0, told
    for interruption in interruptions:
        status, told = run_killed(Kill(*interruption), *settings, "hydra.run.dir=run")
        assert status == 128 + interruption[0], told
        assert "resume=auto goes on" in told
    status, told = run_train(*settings, "hydra.run.dir=run")
    assert status == 0, told
    (rows, content), (whole_rows, whole) = ending(tmp_path / "run"), ending(tmp_path / "whole")
    assert [row["epoch"] for row in whole_rows] == [0, 1, 2]
    unlike = {
        k: (r.get(k), w.get(k)) for r, w in zip(rows, whole_rows, strict=True) for k in {*r, *w} if r.get(k) != w.get(k)
    }
    assert unlike == {}
    for key in whole:
        assert same(content[key], whole[key]), key
