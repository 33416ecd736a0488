"""A run that is interrupted by a signal, between two steps or in a validation, ends bit for bit as an uninterrupted one."""

from __future__ import annotations

import os
import signal
import sys
from types import SimpleNamespace

import pytest
import torch
from lightning import Callback

from distilpose import train
from distilpose.callbacks import interruption
from distilpose.callbacks.interruption import Interruption, _steps_between_checks
from distilpose.callbacks.metrics_table import read_table
from distilpose.runs.checkpoints import newest_intact

TINY = [
    "data=custom", "data.batch_size=4", "data.num_workers=0", "model=student_xs", "model.depth=1", "model.width=32",
    "model.heads=2", "model.input_size=[64,48]", "scheduler.warmup_steps=0", "optimizer.lr=5e-3", "loss=regression",
    "trainer.accelerator=cpu", "trainer.num_sanity_val_steps=0", "logger=none", "~callbacks.pictures", "~callbacks.health",
    "~callbacks.details",
    "trainer.max_epochs=3", "trainer.check_val_every_n_epoch=1", "resume=auto",
]  # fmt: skip
EMA = ["callbacks=ema", "callbacks.ema.decay=0.9"]


def slow(*values):
    return pytest.param(*values, marks=pytest.mark.slow)


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


class Spoil(Callback):
    """Sets the images of one batch to nan."""

    def __init__(self, epoch: int, batch: int):
        self.place = (epoch, batch)

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if (trainer.current_epoch, batch_idx) == self.place:
            batch.image.fill_(float("nan"))


@pytest.fixture
def run_with(run_train, monkeypatch):
    """A function that runs the train command with one more callback."""

    def call(callback: Callback, *arguments: str) -> tuple[int, str]:
        build = train.build_trainer

        def with_callback(cfg):
            trainer = build(cfg)
            trainer.callbacks.insert(0, callback)
            return trainer

        with monkeypatch.context() as patch:
            patch.setattr(interruption.log, "warning", lambda text: print(text, file=sys.stderr))
            patch.setattr(train, "build_trainer", with_callback)
            return run_train(*arguments)

    return call


@pytest.mark.parametrize(
    ("extra", "interruptions"),
    [
        ([], [(signal.SIGTERM, 1, 2), (signal.SIGTERM, 1, 0, True)]),
        slow([], [(signal.SIGUSR2, 0, 5), (signal.SIGUSR1, 2, 0)]),
        slow(["data.num_workers=1"], [(signal.SIGINT, 1, 1), (signal.SIGHUP, 2, 4)]),
        slow(
            [*EMA, "data.num_workers=2", "trainer.accumulate_grad_batches=2"],
            [(signal.SIGTERM, 1, 1), (signal.SIGTERM, 2, 4)],
        ),
        slow(["augmentation=released"], [(signal.SIGTERM, 1, 5, False), (signal.SIGTERM, 2, 4)]),
    ],
)  # fmt: skip
def test_an_interrupted_run_ends_as_an_uninterrupted_one(
    run_train, run_with, assert_same_end, tiny_coco, tmp_path, recwarn, extra, interruptions
):
    settings = [*TINY, "augmentation=none", *extra, f"data.root={tiny_coco(train=17, val=6)}"]
    status, message = run_train(*settings, "hydra.run.dir=uninterrupted")
    assert status == 0, message
    for kill in interruptions:
        status, message = run_with(Kill(*kill), *settings, "hydra.run.dir=run")
        assert status == 128 + kill[0], message
        assert "resume=auto" in message
    status, message = run_train(*settings, "hydra.run.dir=run")
    assert status == 0, message
    assert not [warning for warning in recwarn if "dataloader is not resumable" in str(warning.message)]
    assert [row["epoch"] for row in read_table(tmp_path / "uninterrupted" / "metrics.csv")] == [0, 1, 2]
    assert_same_end(tmp_path / "run", tmp_path / "uninterrupted")


def test_a_second_ctrl_c_ends_the_run_at_once():
    callback = Interruption(".")
    callback._receive(signal.SIGTERM, None)
    callback._receive(signal.SIGINT, None)
    assert callback.received == signal.SIGINT
    with pytest.raises(KeyboardInterrupt):
        callback._receive(signal.SIGINT, None)


@pytest.mark.parametrize("ignored", [signal.SIGHUP, signal.SIGINT])
def test_an_ignored_signal_as_by_nohup_stays_ignored(run_with, tiny_coco, tmp_path, ignored):
    before = signal.signal(ignored, signal.SIG_IGN)
    try:
        settings = [*TINY, "trainer.max_epochs=1", "augmentation=none", f"data.root={tiny_coco(train=17, val=6)}"]
        status, message = run_with(Kill(ignored, 0, 1), *settings, "hydra.run.dir=run")
        assert status == 0, message
        assert signal.getsignal(ignored) == signal.SIG_IGN
    finally:
        signal.signal(ignored, before)


def test_a_signal_before_the_first_step_sets_the_exit_code(run_with, run_train, tiny_coco, tmp_path):
    settings = [
        *TINY,
        "augmentation=none",
        f"data.root={tiny_coco(val=6)}",
        "hydra.run.dir=run",
        "trainer.max_epochs=1",
    ]
    status, message = run_with(Kill(signal.SIGTERM, 0, 0, True), *settings, "trainer.num_sanity_val_steps=2")
    assert status == 128 + signal.SIGTERM
    assert "SIGTERM in the sanity check of epoch 0" in message
    status, message = run_train(*settings)
    assert status == 0, message


@pytest.mark.parametrize(
    ("extra", "step"),
    [
        (["trainer.log_every_n_steps=2"], 8),
        slow(["trainer.log_every_n_steps=50"], 11),
        (["trainer.log_every_n_steps=50", "callbacks.interruption.minutes=1e-9"], 8),
        slow([*EMA, "trainer.log_every_n_steps=50", "callbacks.interruption.minutes=1e-9"], 8),
    ],
    ids=["found when values are logged", "at the latest before validation", "before it is saved", "averaged"],
)
def test_a_non_finite_loss_ends_the_run_and_keeps_its_checkpoints(
    run_with, run_train, tiny_coco, tmp_path, extra, step
):
    settings = [*TINY, "augmentation=none", *extra, f"data.root={tiny_coco(train=17, val=6)}", "hydra.run.dir=run"]
    status, message = run_with(Spoil(1, 1), *settings)
    assert status == 1
    assert f"epoch 1, at step {step} or at most" in message
    assert "Traceback" not in message
    assert newest_intact(tmp_path / "run").step == (7 if "callbacks.interruption.minutes=1e-9" in extra else 6)
    for path in (tmp_path / "run" / "checkpoints").glob("*.ckpt"):
        for name, value in torch.load(path, weights_only=True)["state_dict"].items():
            assert value.isfinite().all(), (path.name, name)
    status, message = run_train(*settings)
    assert status == 0, message


@pytest.mark.parametrize(
    ("device", "world", "accumulated", "steps"),
    [("cuda", 1, 1, 1), ("cpu", 4, 1, 1), ("cuda", 4, 1, 10), ("cuda", 4, 4, 3), ("cuda", 4, 32, 1)],
)
def test_gpus_are_synchronised_every_ten_batches(device, world, accumulated, steps):
    strategy = SimpleNamespace(root_device=torch.device(device))
    trainer = SimpleNamespace(world_size=world, strategy=strategy, accumulate_grad_batches=accumulated)
    assert _steps_between_checks(trainer) == steps


@pytest.mark.slow
@pytest.mark.parametrize("validation", [True, False])
def test_a_signal_in_a_validation_within_an_epoch_saves_after_the_next_step(
    run_train, run_with, assert_same_end, tiny_coco, tmp_path, validation
):
    settings = [
        *TINY,
        "augmentation=none",
        f"data.root={tiny_coco(train=25, val=6)}",
        "callbacks.interruption.minutes=null",
    ]
    settings += ["trainer.check_val_every_n_epoch=null", "+trainer.val_check_interval=3"]
    status, message = run_train(*settings, "hydra.run.dir=uninterrupted")
    assert status == 0, message
    status, message = run_with(
        Kill(signal.SIGTERM, 1, 0 if validation else 2, validation), *settings, "hydra.run.dir=run"
    )
    assert status == 128 + signal.SIGTERM, message
    assert newest_intact(tmp_path / "run").step == 9 + (4 if validation else 3)
    status, message = run_train(*settings, "hydra.run.dir=run")
    assert status == 0, message
    assert_same_end(tmp_path / "run", tmp_path / "uninterrupted")


class StopAndRecord(Callback):
    """Records the loss of each batch, and stops the training in a validation within an epoch, as early stopping does."""

    def __init__(self, epoch: int, step: int):
        self.place, self.losses = (epoch, step), []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.losses.append((trainer.current_epoch, float(outputs["loss"]), len(batch.image)))

    def on_validation_end(self, trainer, pl_module):
        if (trainer.current_epoch, trainer.global_step) == self.place:
            trainer.should_stop = True


@pytest.mark.parametrize("epoch", [0, 1])
def test_the_means_of_an_epoch_that_a_validation_stops(run_with, tiny_coco, tmp_path, epoch):
    settings = [*TINY, "augmentation=none", f"data.root={tiny_coco(train=17, val=6)}", "hydra.run.dir=run"]
    stop = StopAndRecord(epoch, 6 * epoch + 2)
    status, message = run_with(stop, *settings, "+trainer.val_check_interval=2")
    assert status == 0, message
    rows = read_table(tmp_path / "run" / "metrics.csv")
    assert [row["epoch"] for row in rows] == list(range(epoch + 1))
    for row in rows:
        losses = [(loss, count) for number, loss, count in stop.losses if number == row["epoch"]]
        expected = sum(loss * count for loss, count in losses) / sum(count for _, count in losses)
        assert row["train/total"] == pytest.approx(expected, rel=1e-5)
    assert len([one for one in stop.losses if one[0] == epoch]) == 2


class Validations(Callback):
    """Records the steps of all finished validations."""

    def __init__(self):
        self.steps = []

    def on_validation_end(self, trainer, pl_module):
        self.steps.append(trainer.global_step)


@pytest.mark.slow
@pytest.mark.parametrize("minutes", ["null", "1e-9"])
def test_a_signal_in_a_validation_within_an_epoch_loses_no_validation(run_with, tiny_coco, tmp_path, minutes):
    """Also if the run was saved after the step that is validated."""
    settings = [*TINY, "augmentation=none", f"data.root={tiny_coco(train=25, val=6)}", "data.val_batch_size=3"]
    settings += ["trainer.max_epochs=2", "+trainer.val_check_interval=3", f"callbacks.interruption.minutes={minutes}"]
    killed, resumed = Validations(), Validations()
    kill = Kill(signal.SIGTERM, 1, 0, True)
    kill.on_validation_end = killed.on_validation_end
    status, message = run_with(kill, *settings, "hydra.run.dir=run")
    assert status == 128 + signal.SIGTERM, message
    status, message = run_with(resumed, *settings, "hydra.run.dir=run")
    assert status == 0, message
    assert sorted({*killed.steps, *resumed.steps}) == [3, 6, 9, 12, 15, 18]
