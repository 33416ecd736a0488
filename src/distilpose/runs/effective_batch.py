"""The effective batch of a resumed run, compared with its checkpoint's: crops a process x processes x accumulated batches.

The configuration does not state it: with `trainer.devices=auto` it depends on the machine. Every checkpoint holds the three
numbers (`distilpose.data.sampler.data_progress`).
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from math import prod
from typing import Any, NamedTuple

from hydra.core.hydra_config import HydraConfig
from lightning.pytorch.utilities import rank_zero_only
from omegaconf import DictConfig

from distilpose.errors import DistilPoseError
from distilpose.runs.preflight import count_processes

log = logging.getLogger(__name__)

# settings that divide an effective batch; a resumed run may change them as long as the product stays the same
SPLIT = ("data.batch_size", "trainer.devices", "trainer.num_nodes", "trainer.accumulate_grad_batches")


class Batch(NamedTuple):
    """An optimizer step's crops.

    Attributes:
        crops: crops of a batch in one process.
        processes: number of processes.
        accumulated: batches accumulated for one step.
    """

    crops: int
    processes: int
    accumulated: int

    @property
    def effective(self) -> int:
        """Crops of one optimizer step."""
        return prod(self)

    def __str__(self) -> str:
        processes = "1 process" if self.processes == 1 else f"{self.processes} processes"
        return f"{self.effective} ({self.crops} crops x {processes} x {self.accumulated} accumulated)"


def batch_of_run(cfg: DictConfig) -> Batch:
    """The batch of a configuration on this machine."""
    return Batch(cfg.data.batch_size, count_processes(cfg.trainer), cfg.trainer.get("accumulate_grad_batches", 1))


def batch_of_checkpoint(content: Mapping[str, Any]) -> Batch | None:
    """The batch of a checkpoint's training; None if it was written by a version that did not store it."""
    progress = data_of_checkpoint(content)
    return Batch(*map(int, progress["step"])) if len(progress.get("step", ())) == len(Batch._fields) else None


def data_of_checkpoint(content: Mapping[str, Any]) -> Mapping[str, Any]:
    """The state of a checkpoint's data module (`data_progress`), whose key is the name of its class; empty without one."""
    states = (value for value in content.values() if isinstance(value, Mapping))
    return next((state for state in states if {"epochs", "batches"} <= state.keys()), {})


def check_effective_batch(cfg: DictConfig, content: Mapping[str, Any], same_command: bool = False) -> None:
    """Compare the effective batch of a run to resume with its checkpoint's.

    The same number of crops in other parts gives the same steps, and is logged. Another number trains differently: it has to
    be wanted, by `data.batch_size` on the command line of `resume=FOLDER` or `resume=FILE`, or by `batch_may_change=true`.

    Args:
        cfg: configuration of the run.
        content: content of the checkpoint.
        same_command: whether the command is that of the first start (resume=auto), so that its data.batch_size is no change.

    Raises:
        DistilPoseError: the effective batch differs, and nothing says that this is wanted.
    """
    before, now = batch_of_checkpoint(content), batch_of_run(cfg)
    if before == now:
        return
    if before is None:
        rank_zero_only(log.warning)(
            f"The checkpoint does not state the effective batch of its training: that of this start, {now}, is assumed."
        )
    elif before.effective == now.effective:
        rank_zero_only(log.info)(f"The effective batch stays {before.effective}: before {before}, now {now}.")
    elif cfg.get("batch_may_change") or (not same_command and _batch_size_is_given()):
        rank_zero_only(log.warning)(
            f"The effective batch changes from {before} to {now}; the optimizer keeps the learning rate of the checkpoint."
        )
    else:
        raise DistilPoseError(
            f"The run to resume was trained with an effective batch of {before}, but this start has {now}: "
            f"{_way(before, now)}, or give batch_may_change=true to train on with another one."
        )


def _batch_size_is_given() -> bool:
    """Whether the command line sets data.batch_size."""
    words = HydraConfig.get().overrides.task if HydraConfig.initialized() else ()
    return any(word.lstrip("+").startswith("data.batch_size=") for word in words)


def _way(before: Batch, now: Batch) -> str:
    """The settings that keep the effective batch on this number of processes."""
    accumulated, rest = divmod(before.effective, now.crops * now.processes)
    if not rest:
        return f"give trainer.accumulate_grad_batches={accumulated}"
    crops, rest = divmod(before.effective, now.processes)
    return (
        f"give {before.processes} devices"
        if rest
        else f"give data.batch_size={crops} trainer.accumulate_grad_batches=1"
    )
