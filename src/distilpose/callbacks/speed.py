"""Throughput of a training, its learning rates, and the parts of its loss, for loggers only."""

from __future__ import annotations

import time
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer

from distilpose.loggers.tables import log_figures
from distilpose.modules.pose_module import PoseModule
from distilpose.outputs import PoseBatch

TOTAL = "total"


class Speed(Callback):
    """Log throughput, learning rates and shares of the loss to loggers, and not to metrics.csv, which has no timings.

    Every `trainer.log_every_n_steps` batches and at the end of an epoch, over the batches since the last logging:

    - speed/persons_per_second: persons of all processes;
    - speed/waiting_share: share of the time spent between the end of a step and the start of the next: waiting for data and
      its transfer to the device, checkpoints within the epoch, and loggers;
    - speed/gpu_memory_gib: peak memory of the tensors of the first process, on GPUs;
    - learning_rate/<group>: if the optimizer has several parameter groups.

    After each epoch, share/<term>: the epoch mean of each weighted term, as a share of the sum of all absolute values (a
    likelihood may be negative).

    Times are measured by the first process. A GPU runs asynchronously, so single steps cannot be timed without
    synchronising; over many batches the CPU keeps its pace.
    """

    def __init__(self) -> None:
        self._restart()

    def _restart(self) -> None:
        self._batches, self._persons, self._waited = 0, 0, 0.0
        self._began = self._ended = time.perf_counter()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock, also for a run that is resumed in the middle of an epoch."""
        self._restart()

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Restart the clock: the time between two epochs does not count."""
        self._restart()

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: PoseBatch, batch_idx: int
    ) -> None:
        """Add the time spent waiting for the batch."""
        self._waited += time.perf_counter() - self._ended

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: PoseBatch, batch_idx: int
    ) -> None:
        """Count the batch, and log if it is due."""
        self._batches += 1
        self._persons += len(batch.image)
        every = trainer.log_every_n_steps  # type: ignore[attr-defined]
        due = every and self._batches >= every
        if trainer.is_global_zero and trainer.loggers and (due or trainer.is_last_batch):
            log_figures(trainer, self._figures(trainer, pl_module) | rates(trainer))
            self._restart()
        self._ended = time.perf_counter()

    def _figures(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, float]:
        seconds = time.perf_counter() - self._began
        figures = {
            "speed/persons_per_second": self._persons * trainer.world_size / seconds,
            "speed/waiting_share": self._waited / seconds,
        }
        if pl_module.device.type == "cuda":
            figures["speed/gpu_memory_gib"] = torch.cuda.max_memory_allocated(pl_module.device) / 2**30
        return figures

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the shares of the epoch's loss."""
        if isinstance(pl_module, PoseModule):
            pl_module.log_epoch_means()
        if trainer.is_global_zero and trainer.loggers:
            log_figures(trainer, shares(trainer.callback_metrics))


def rates(trainer: Trainer) -> dict[str, float]:
    """Learning rate of each parameter group as learning_rate/<name or number>; nothing for a single group."""
    groups = [group for optimizer in trainer.optimizers for group in optimizer.param_groups]
    named = {f"learning_rate/{group.get('name', f'{n:02d}')}": float(group["lr"]) for n, group in enumerate(groups)}
    return named if len(groups) > 1 else {}


def shares(logged: Any) -> dict[str, float]:
    """The terms train/<term>_epoch as share/<term>, whose absolute values have the sum 1; terms of 0 are left out.

    Args:
        logged: logged values by name.
    """
    names = [name for name in logged if name.startswith("train/") and name.endswith("_epoch")]
    terms = {name.removeprefix("train/").removesuffix("_epoch"): float(logged[name]) for name in names}
    terms = {name: value for name, value in terms.items() if name != TOTAL and value != 0}
    total = sum(map(abs, terms.values()))
    return {f"share/{name}": value / total for name, value in terms.items()} if len(terms) > 1 else {}
