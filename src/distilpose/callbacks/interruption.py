"""Nothing lost: a checkpoint in the middle of an epoch, by the clock and when a signal asks the run to leave."""

from __future__ import annotations

import signal
import sys
import time
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint

from distilpose.errors import DistilPoseError, check_number


class Interruption(Checkpoint):  # which Lightning calls after all others, such as the averaging of weights
    """Saves `recent.ckpt` between two steps every so many minutes, and leaves when a signal asks for it.

    Clusters send a signal some time before they kill: SIGTERM on preemption, SIGUSR1 or SIGUSR2 by `--signal`. The run then
    saves after the step it is in and leaves with exit code 128 + the signal's number; resumed, it goes on with the next
    batch and ends bit for bit where it would have (on a CPU). A validation is left at once: one checkpoint is written
    shortly before each. A handler that was there before, such as submitit's that puts a job back into the queue, is
    called after the saving.

    Args:
        folder: of the checkpoints.
        minutes: between two checkpoints within an epoch, by a clock that cannot be set; None saves none by the clock.
    """

    SIGNALS = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGUSR1", "SIGUSR2") if hasattr(signal, name))

    def __init__(self, folder: str | Path, minutes: float | None = 15.0):
        if minutes is not None:
            check_number("callbacks.interruption.minutes", minutes, above=0)
        self.path = Path(folder) / "recent.ckpt"
        self.minutes = minutes
        self.received: int | None = None
        self._saved_at = time.monotonic()
        self._before: dict[int, Any] = {}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Listen, in place of Lightning's handler, which talks to the other processes in the middle of whatever they do."""
        self._saved_at = time.monotonic()
        connector = getattr(trainer, "_signal_connector", None)
        originals = getattr(connector, "_original_handlers", {})
        try:
            for number in self.SIGNALS:
                before = signal.signal(number, self._note)
                self._before[number] = originals.get(number, before)
        except ValueError:  # signals reach a process's main thread only
            self._before.clear()

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.received = number

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save where it is due, and leave where that is asked: all processes after the same batch."""
        shown, steps = batch_idx + 1, trainer.accumulate_grad_batches
        if shown % steps or shown >= trainer.num_training_batches:
            return  # between two accumulated batches gradients would be lost; after the last the epoch's end saves
        due = self.minutes is not None and time.monotonic() - self._saved_at > 60 * self.minutes
        due |= shown + steps >= trainer.num_training_batches and self._validates(trainer)
        if not trainer.strategy.reduce_boolean_decision(self.received is not None or due, all=False):
            return
        check_weights(pl_module)
        trainer.save_checkpoint(self.path)
        self._saved_at = time.monotonic()
        self._leave_if_asked(
            trainer, f"epoch {trainer.current_epoch}, {shown} of {trainer.num_training_batches} batches"
        )

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave between two epochs: the last one's checkpoint has just been written."""
        self._leave_if_asked(trainer, f"before epoch {trainer.current_epoch}")

    def on_validation_batch_end(self, trainer: Trainer, *args: Any) -> None:
        """Leave in the middle of a validation, which is done again on resuming."""
        if not trainer.sanity_checking and trainer.world_size == 1:  # of several, each has its own number of batches
            self._leave_if_asked(trainer, f"the validation of epoch {trainer.current_epoch}")

    @staticmethod
    def _validates(trainer: Trainer) -> bool:
        interval = trainer.check_val_every_n_epoch
        return interval is not None and (trainer.current_epoch + 1) % interval == 0

    def _leave_if_asked(self, trainer: Trainer, place: str) -> None:
        if not trainer.strategy.reduce_boolean_decision(self.received is not None, all=False):
            return
        number = self.received or int(signal.SIGTERM)
        if trainer.is_global_zero:
            print(
                f"Left on {signal.Signals(number).name} in {place}; the same command with resume=auto goes on.",
                file=sys.stderr,
                flush=True,
            )
        before = self._before.get(number)
        if callable(before):
            before(number, None)
        raise SystemExit(128 + number)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Give the signals back."""
        for number, before in self._before.items():
            signal.signal(number, signal.SIG_DFL if before is None else before)
        self._before.clear()


def check_weights(module: LightningModule) -> None:
    """Refuse to save weights that are no numbers over those that were.

    Raises:
        DistilPoseError: the training has diverged.
    """
    finite = torch.stack([parameter.detach().isfinite().all() for parameter in module.parameters()]).all()
    if not finite:
        raise DistilPoseError(
            f"The weights are no longer finite in epoch {module.current_epoch}: the training diverged, so lower "
            "optimizer.lr or lengthen scheduler.warmup_steps; earlier checkpoints are kept."
        )
