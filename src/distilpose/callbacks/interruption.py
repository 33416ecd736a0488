"""Checkpoints within an epoch, at intervals and on a signal, so that a preempted run loses nothing.

Lightning's signal handlers are not used: they save only on SLURM's signal, may do so in the middle of a step, and a run resumed
from that checkpoint differs in its last bits.
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

from distilpose.modules.divergence import check_divergence
from distilpose.runs.checkpoints import RECENT

log = logging.getLogger(__name__)


# a Checkpoint, because Lightning calls checkpoint callbacks last, after others such as weight averaging
class Interruption(Checkpoint):
    """Save `recent.ckpt` between two steps every few minutes, and stop the run on a signal.

    Clusters send a signal some time before they kill a job: SIGTERM on preemption, SIGUSR1 or SIGUSR2 with `--signal`. Users
    send SIGINT (Ctrl-C; a second one ends the run at once), and a closing terminal sends SIGHUP. The run then saves after its
    current step and exits with code 128 + the signal's number. The resumed run continues with the next batch. On a CPU it
    ends bit for bit as an uninterrupted one. A validation between epochs is stopped at once, because a checkpoint is written
    shortly before each validation.

    With several processes, perhaps only one receives the signal. They therefore exchange it after every step (CPU) or about
    every tenth batch (GPU). An earlier handler, such as submitit's that requeues the job, is called after saving. A signal
    that is ignored, for example under nohup, stays ignored.

    Args:
        folder: folder of the checkpoints.
        minutes: time between two checkpoints within an epoch; null saves only on signals and before validations.
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
        """Store the handlers before Lightning replaces them."""
        self._earlier_handlers = {number: signal.getsignal(number) for number in self.SIGNALS}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock, and register the handlers."""
        self._saved_at = time.monotonic()
        self._register_handlers()

    def on_sanity_check_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Register the handlers before the sanity check, because Lightning's would exit with code 0."""
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
        """Save if it is due, and stop if a signal was received, in all processes after the same batch."""
        done, accumulated = batch_idx + 1, trainer.accumulate_grad_batches
        if done % accumulated or done >= trainer.num_training_batches:
            return  # between accumulated batches gradients would be lost; at the end of an epoch Lightning saves
        due = self.minutes is not None and time.monotonic() - self._saved_at > 60 * self.minutes
        before_validation = done + accumulated >= trainer.num_training_batches and self._validates(trainer)
        if not before_validation and done // accumulated % _steps_between_checks(trainer):
            return
        number, save = _maximum(trainer, self.received or 0, int(due or before_validation))
        if not number and not save:
            return
        check_divergence(pl_module)  # type: ignore[arg-type]
        trainer.save_checkpoint(self.path)
        self._saved_at, self._saved_step = time.monotonic(), trainer.global_step
        self._leave(
            trainer, number, f"in epoch {trainer.current_epoch}, after {done} of {trainer.num_training_batches} batches"
        )

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop between two epochs: the checkpoint of the last epoch has just been written."""
        self._saved_step = trainer.global_step
        (number,) = _maximum(trainer, self.received or 0)
        self._leave(trainer, number, f"at the start of epoch {trainer.current_epoch}")

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Compute the number of batches that every process has: their numbers may differ by one."""
        (negative,) = _maximum(trainer, -int(sum(trainer.num_val_batches)))  # minus the maximum is the minimum
        self._shared_batches = -negative

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int, *args: Any
    ) -> None:
        """Stop in the middle of a validation if one step is lost; the resumed run repeats that step and the validation."""
        # with val_check_interval more steps may be lost, or none, and a run resumed after a step does not validate it: the run
        # then stops after its next step
        repeats = trainer.sanity_checking or trainer.global_step - self._saved_step == 1
        checks = batch_idx < self._shared_batches and (batch_idx + 1) % _steps_between_checks(trainer) == 0
        if checks and repeats:
            (number,) = _maximum(trainer, self.received or 0)
            validation = "the sanity check" if trainer.sanity_checking else "the validation"
            self._leave(trainer, number, f"in {validation} of epoch {trainer.current_epoch}")

    @staticmethod
    def _validates(trainer: Trainer) -> bool:
        interval = trainer.check_val_every_n_epoch
        return interval is not None and (trainer.current_epoch + 1) % interval == 0

    def _leave(self, trainer: Trainer, number: int, place: str) -> None:
        if not number:
            return
        if trainer.is_global_zero:
            with tqdm.external_write_mode():  # on a separate line between progress bars
                log.warning(
                    f"Stopped by {signal.Signals(number).name} {place}: run the same command with resume=auto to resume."
                )
        handler = self._earlier_handlers.get(number)
        try:
            if callable(handler) and handler is not signal.default_int_handler:
                handler(number, None)
        finally:  # rank zero may still be requeuing the job, and a process that exits first could end the job
            trainer.strategy.barrier()
        raise SystemExit(128 + number)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Restore the earlier handlers."""
        for number in self._replaced:
            handler = self._earlier_handlers.get(number)
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        self._replaced.clear()


def _steps_between_checks(trainer: Trainer) -> int:
    """Number of steps between two exchanges of signals: on GPUs each exchange makes the CPU wait."""
    immediate = trainer.world_size == 1 or trainer.strategy.root_device.type == "cpu"
    return 1 if immediate else math.ceil(10 / trainer.accumulate_grad_batches)


def _maximum(trainer: Trainer, *numbers: int) -> list[int]:
    """The maximum of each number over all processes: a signal reaches them at different steps, or reaches only one."""
    if trainer.world_size == 1:
        return list(numbers)
    reduced = torch.tensor(numbers, device=trainer.strategy.root_device)
    torch.distributed.all_reduce(reduced, torch.distributed.ReduceOp.MAX)
    return [int(number) for number in reduced.tolist()]
