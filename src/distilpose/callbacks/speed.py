"""How fast a training is and where its time goes, its rates, and what its loss is made of: for loggers alone."""

from __future__ import annotations

import time
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer

from distilpose.loggers.tables import log_figures
from distilpose.outputs import PoseBatch

TOTAL = "total"


class Speed(Callback):
    """Logs throughput, rates and shares of the loss; nothing goes into metrics.csv, whose rows are the same in any run.

    Every `trainer.log_every_n_steps` batches, and at an epoch's end, over the batches since:

    - speed/persons_per_second: of all processes;
    - speed/waiting_share: share of the time between the end of a step and the start of the next, which is the wait for data
      and its way to the device, checkpoints by the clock, and loggers;
    - speed/gpu_memory_gib: the most that tensors of the first process held, on GPUs;
    - learning_rate/<group>: where the optimiser has several groups, at different rates.

    After each epoch share/<term>: each weighted term's epoch mean, as a share of the sum of all terms' absolute values (a
    likelihood may be negative).

    Time is that of the first process's clock. Of a GPU, which works behind the CPU's back, single steps would not be known
    without waiting for it; over many batches the two keep step.
    """

    def __init__(self) -> None:
        self._restart()

    def _restart(self) -> None:
        self._batches, self._persons, self._waited = 0, 0, 0.0
        self._began = self._ended = time.perf_counter()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock; a run resumed in the middle of an epoch does not start that anew."""
        self._restart()

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock; what lies between two epochs does not count."""
        self._restart()

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: PoseBatch, batch_idx: int
    ) -> None:
        """Note how long the batch was waited for."""
        self._waited += time.perf_counter() - self._ended

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: PoseBatch, batch_idx: int
    ) -> None:
        """Count the batch, and log when it is time."""
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
        """Log what the epoch's loss was made of."""
        if trainer.is_global_zero and trainer.loggers:
            log_figures(trainer, shares(trainer.callback_metrics))


def rates(trainer: Trainer) -> dict[str, float]:
    """The rate of each parameter group as learning_rate/<name or number>; none where there is one group alone."""
    groups = [group for optimizer in trainer.optimizers for group in optimizer.param_groups]
    named = {f"learning_rate/{group.get('name', f'{n:02d}')}": float(group["lr"]) for n, group in enumerate(groups)}
    return named if len(groups) > 1 else {}


def shares(logged: Any) -> dict[str, float]:
    """The terms train/<term>_epoch as share/<term>, absolute values summing to 1; a term of 0 is left out.

    Args:
        logged: what was logged, by name.
    """
    names = [name for name in logged if name.startswith("train/") and name.endswith("_epoch")]
    terms = {name.removeprefix("train/").removesuffix("_epoch"): float(logged[name]) for name in names}
    terms = {name: value for name, value in terms.items() if name != TOTAL and value != 0}
    total = sum(map(abs, terms.values()))
    return {f"share/{name}": value / total for name, value in terms.items()} if len(terms) > 1 else {}
