"""Nothing lost: a checkpoint in the middle of an epoch, by the clock and when a signal asks the run to leave."""

from __future__ import annotations

import math
import signal
import sys
import time
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint
from tqdm import tqdm

from distilpose.errors import check_number
from distilpose.runs.checkpoints import RECENT


class Interruption(Checkpoint):  # which Lightning calls after all others, such as the averaging of weights
    """Saves `recent.ckpt` between two steps every so many minutes, and leaves when a signal asks for it.

    Clusters send a signal some time before they kill: SIGTERM on preemption, SIGUSR1 or SIGUSR2 by `--signal`. People send
    SIGINT (Ctrl-C, which sent again ends at once), and a terminal that closes SIGHUP. The run then saves after the step it is
    in and leaves with exit code 128 + the signal's number; resumed, it goes on with the next batch and ends bit for bit where
    it would have (on a CPU). A validation between epochs is left at once: one checkpoint is written shortly before each. Of
    several processes it is enough that one is told; on GPUs they ask each other after every tenth batch. A handler that was
    there before, such as submitit's that puts a job back into the queue, is called after the saving; a signal that is
    ignored, as nohup has it, stays so.

    Args:
        folder: of the checkpoints.
        minutes: between two checkpoints within an epoch, by a clock that cannot be set; None saves none by the clock.
    """

    SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGINT, signal.SIGHUP)

    def __init__(self, folder: str | Path, minutes: float | None = 15.0):
        if minutes is not None:
            check_number("callbacks.interruption.minutes", minutes, above=0)
        self.path = Path(folder) / RECENT
        self.minutes = minutes
        self.received: int | None = None
        self._saved_at = time.monotonic()
        self._saved_step = 0
        self._before: dict[int, Any] = {}
        self._shared = 0  # batches of a validation that every process has

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        self._saved_at = time.monotonic()
        self._listen(trainer)

    def on_sanity_check_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Be told already: Lightning would end with status 0."""
        self._listen(trainer)

    def _listen(self, trainer: Trainer) -> None:
        """In place of Lightning's handler, which talks to the other processes in the middle of whatever they do."""
        if self._before:
            return
        connector = getattr(trainer, "_signal_connector", None)
        originals = getattr(connector, "_original_handlers", {})
        try:
            for number in self.SIGNALS:
                if signal.getsignal(number) == signal.SIG_IGN:
                    continue
                before = signal.signal(number, self._note)
                self._before[number] = originals.get(number, before)
        except ValueError:  # signals reach a process's main thread only
            self._before.clear()

    def _note(self, number: int, frame: FrameType | None) -> None:
        if number == self.received == signal.SIGINT:  # whoever asks twice does not want to wait
            signal.default_int_handler(number, frame)
        self.received = number

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save where it is due, and leave where that is asked: all processes after the same batch."""
        shown, steps = batch_idx + 1, trainer.accumulate_grad_batches
        if shown % steps or shown >= trainer.num_training_batches:
            return  # between two accumulated batches gradients would be lost; after the last the epoch's end saves
        due = self.minutes is not None and time.monotonic() - self._saved_at > 60 * self.minutes
        last = shown + steps >= trainer.num_training_batches and self._validates(trainer)
        if not last and shown // steps % _interval(trainer):
            return
        due |= last
        asked, save = _most(trainer, self.received or 0, int(due))
        if not asked and not save:
            return
        pl_module.check_finite()  # type: ignore[operator]
        trainer.save_checkpoint(self.path)
        self._saved_at, self._saved_step = time.monotonic(), trainer.global_step
        self._leave(trainer, asked, f"epoch {trainer.current_epoch}, {shown} of {trainer.num_training_batches} batches")

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave between two epochs: the last one's checkpoint has just been written."""
        self._saved_step = trainer.global_step
        (asked,) = _most(trainer, self.received or 0)
        self._leave(trainer, asked, f"before epoch {trainer.current_epoch}")

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Find out how many batches each process has: their numbers may differ by one."""
        (fewest,) = _most(trainer, -int(sum(trainer.num_val_batches)))
        self._shared = -fewest

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int, *args: Any
    ) -> None:
        """Leave in the middle of a validation, which is done again on resuming, if at most one step is lost by it."""
        # more of a validation by val_check_interval, which is left after its next step
        lost = 0 if trainer.sanity_checking else trainer.global_step - self._saved_step
        asks = batch_idx < self._shared and (batch_idx + 1) % _interval(trainer) == 0
        if asks and lost <= 1:
            (asked,) = _most(trainer, self.received or 0)
            place = "the look before the first step" if trainer.sanity_checking else "the validation"
            self._leave(trainer, asked, f"{place} of epoch {trainer.current_epoch}")

    @staticmethod
    def _validates(trainer: Trainer) -> bool:
        interval = trainer.check_val_every_n_epoch
        return interval is not None and (trainer.current_epoch + 1) % interval == 0

    def _leave(self, trainer: Trainer, number: int, place: str) -> None:
        if not number:
            return
        if trainer.is_global_zero:
            # on a line of its own, whatever progress bars there are
            tqdm.write(
                f"Left on {signal.Signals(number).name} in {place}; the same command with resume=auto goes on.",
                sys.stderr,
            )
        before = self._before.get(number)
        try:
            if callable(before) and before is not signal.default_int_handler:
                before(number, None)
        finally:  # a process that ends before the first has put the job back into the queue may take it along
            trainer.strategy.barrier()
        raise SystemExit(128 + number)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Give the signals back."""
        for number, before in self._before.items():
            signal.signal(number, signal.SIG_DFL if before is None else before)
        self._before.clear()


def _interval(trainer: Trainer) -> int:
    """Steps between two questions to all processes: on GPUs each makes the CPU wait, and ten batches are soon over."""
    alone = trainer.world_size == 1 or trainer.strategy.root_device.type == "cpu"
    return 1 if alone else math.ceil(10 / trainer.accumulate_grad_batches)


def _most(trainer: Trainer, *numbers: int) -> list[int]:
    """The highest of each number over all processes: a signal reaches them at different steps, or only one of them."""
    if trainer.world_size == 1:
        return list(numbers)
    told = torch.tensor(numbers, device=trainer.strategy.root_device)
    torch.distributed.all_reduce(told, torch.distributed.ReduceOp.MAX)
    return [int(number) for number in told.tolist()]
