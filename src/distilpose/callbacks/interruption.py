"""Checkpoints within an epoch, by the clock and on a signal, so that a preempted run loses nothing.

Lightning's own signal handlers save on SLURM's signal only, wherever they are called, and cannot continue bit for bit.
"""

from __future__ import annotations

import logging
import math
import signal
import time
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

import torch
from annotated_types import Gt, Unit
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint
from tqdm import tqdm

from distilpose.runs.checkpoints import RECENT

log = logging.getLogger(__name__)


class Interruption(
    Checkpoint
):  # Lightning calls checkpoint callbacks last, after those such as the averaging of weights
    """Save `recent.ckpt` between two steps every few minutes, and end the run on a signal.

    Clusters send a signal some time before they kill a job: SIGTERM on preemption, SIGUSR1 or SIGUSR2 by `--signal`. People
    send SIGINT (Ctrl-C, which a second time ends the run at once), and a closing terminal sends SIGHUP. The run then saves
    after its current step and exits with code 128 + the signal's number. Resumed, it continues with the next batch, and on
    a CPU it ends bit for bit as it would have without the interruption. A validation between epochs is left at once, since
    a checkpoint is written shortly before each.

    Of several processes one may receive the signal; on GPUs they ask each other after every tenth batch. An earlier
    handler, such as submitit's that requeues the job, is called after saving. A signal that is ignored, as by nohup, stays
    ignored.

    Args:
        folder: folder of the checkpoints.
        minutes: time between two checkpoints within an epoch, by a monotonic clock; null saves none by the clock.
    """

    SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGINT, signal.SIGHUP)

    def __init__(self, folder: str | Path, minutes: Annotated[float, Gt(0), Unit("minutes")] | None = 15.0):
        self.path = Path(folder) / RECENT
        self.minutes = minutes
        self.received: int | None = None
        self._saved_at = time.monotonic()
        self._saved_step = 0
        self._earlier_handlers: dict[int, Any] = {}
        self._replaced: list[int] = []
        self._shared_batches = 0  # batches of a validation that every process has

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Remember the handlers before Lightning replaces them."""
        self._earlier_handlers = {number: signal.getsignal(number) for number in self.SIGNALS}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        self._saved_at = time.monotonic()
        self._register_handlers()

    def on_sanity_check_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Register the handlers already here: Lightning's would exit with code 0."""
        self._register_handlers()

    def _register_handlers(self) -> None:
        """Replace Lightning's handlers, which communicate with other processes in the middle of any operation."""
        if self._replaced:
            return
        try:
            for number in self.SIGNALS:
                if signal.getsignal(number) != signal.SIG_IGN:
                    signal.signal(number, self._receive)
                    self._replaced.append(number)
        except ValueError:  # only the main thread of a process receives signals
            pass

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if number == self.received == signal.SIGINT:  # the second Ctrl-C
            signal.default_int_handler(number, frame)
        self.received = number

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save if it is due, and leave if a signal was received: all processes after the same batch."""
        done, accumulated = batch_idx + 1, trainer.accumulate_grad_batches
        if done % accumulated or done >= trainer.num_training_batches:
            return  # between accumulated batches gradients would be lost; the end of the epoch saves by itself
        due = self.minutes is not None and time.monotonic() - self._saved_at > 60 * self.minutes
        before_validation = done + accumulated >= trainer.num_training_batches and self._validates(trainer)
        if not before_validation and done // accumulated % _steps_between_checks(trainer):
            return
        number, save = _maximum(trainer, self.received or 0, int(due or before_validation))
        if not number and not save:
            return
        pl_module.check_finite()  # type: ignore[operator]
        trainer.save_checkpoint(self.path)
        self._saved_at, self._saved_step = time.monotonic(), trainer.global_step
        self._leave(
            trainer, number, f"epoch {trainer.current_epoch}, after {done} of {trainer.num_training_batches} batches"
        )

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave between two epochs: the checkpoint of the last one has just been written."""
        self._saved_step = trainer.global_step
        (number,) = _maximum(trainer, self.received or 0)
        self._leave(trainer, number, f"the start of epoch {trainer.current_epoch}")

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Find out how many batches every process has: their numbers may differ by one."""
        (negative,) = _maximum(trainer, -int(sum(trainer.num_val_batches)))
        self._shared_batches = -negative

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int, *args: Any
    ) -> None:
        """Leave in the middle of a validation, which is repeated after resuming, if at most one step is lost by it."""
        # with val_check_interval more may be lost: the run is then left after its next step
        lost = 0 if trainer.sanity_checking else trainer.global_step - self._saved_step
        checks = batch_idx < self._shared_batches and (batch_idx + 1) % _steps_between_checks(trainer) == 0
        if checks and lost <= 1:
            (number,) = _maximum(trainer, self.received or 0)
            validation = "the sanity check" if trainer.sanity_checking else "the validation"
            self._leave(trainer, number, f"{validation} of epoch {trainer.current_epoch}")

    @staticmethod
    def _validates(trainer: Trainer) -> bool:
        interval = trainer.check_val_every_n_epoch
        return interval is not None and (trainer.current_epoch + 1) % interval == 0

    def _leave(self, trainer: Trainer, number: int, place: str) -> None:
        if not number:
            return
        if trainer.is_global_zero:
            with tqdm.external_write_mode():  # on a line of its own between progress bars
                log.warning(
                    f"Stopped by {signal.Signals(number).name} in {place}: run the same command with resume=auto to resume."
                )
        handler = self._earlier_handlers.get(number)
        try:
            if callable(handler) and handler is not signal.default_int_handler:
                handler(number, None)
        finally:  # a process that exits before rank zero has requeued the job may end it
            trainer.strategy.barrier()
        raise SystemExit(128 + number)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Restore the earlier handlers."""
        for number in self._replaced:
            handler = self._earlier_handlers.get(number)
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        self._replaced.clear()


def _steps_between_checks(trainer: Trainer) -> int:
    """Steps after which processes ask each other for signals: on GPUs each time makes the CPU wait."""
    immediate = trainer.world_size == 1 or trainer.strategy.root_device.type == "cpu"
    return 1 if immediate else math.ceil(10 / trainer.accumulate_grad_batches)


def _maximum(trainer: Trainer, *numbers: int) -> list[int]:
    """The maximum of each number over all processes: a signal reaches them at different steps, or only one of them."""
    if trainer.world_size == 1:
        return list(numbers)
    reduced = torch.tensor(numbers, device=trainer.strategy.root_device)
    torch.distributed.all_reduce(reduced, torch.distributed.ReduceOp.MAX)
    return [int(number) for number in reduced.tolist()]
