"""Estimates the time, memory and disk of a run in under a minute: `python -m distilpose.train check=true …`."""

from __future__ import annotations

import contextlib
import logging
import math
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import Timer
from lightning.pytorch.utilities import rank_zero_only
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.table import Table
from torch.utils.data import default_collate

from distilpose.data import CocoDataModule
from distilpose.errors import DistilPoseError
from distilpose.files import remove_if_empty
from distilpose.loggers.wandb_logger import finish_wandb
from distilpose.modules.pose_module import PoseModule
from distilpose.runs.preflight import count_processes, effective_batch, translate_lightning_errors
from distilpose.runs.small_run import STEPS, shrink_batches, small

log = logging.getLogger(__name__)

BATCHES = 10
# reading stops after this time, even before ten batches
READING_SECONDS = 10.0


class Clock(Callback):
    """Records when each training and each validation batch ended."""

    def __init__(self) -> None:
        self.train: list[float] = []
        self.val: list[float] = []
        self.val_end = 0.0

    def on_train_batch_start(self, *args: Any) -> None:
        """Record the start of the first batch."""
        self.train = self.train or [_now()]

    def on_train_batch_end(self, *args: Any) -> None:
        """Record the time."""
        self.train.append(_now())

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Record the start of the validation."""
        self.val = [_now()]

    def on_validation_batch_end(self, *args: Any) -> None:
        """Record the time."""
        self.val.append(_now())

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Record the time after metrics and pictures."""
        self.val_end = _now()


def _now() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    elif torch.backends.mps.is_available():
        torch.mps.synchronize()
    return time.perf_counter()


def _peak_memory() -> int:
    """Peak memory of this process in bytes."""
    unit = 1 if sys.platform == "darwin" else 1024  # macOS counts in bytes, Linux in KiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def dry_run(
    cfg: DictConfig, module: PoseModule, datamodule: CocoDataModule, build_trainer: Callable[[DictConfig], Trainer]
) -> dict[str, float]:
    """Read ten batches, train two steps, validate and save once, and print an estimate for the complete run.

    All callbacks and loggers of the run are used, in a temporary folder inside the run's folder. This finds a folder that
    cannot be written, or a full disk. Only one device is used; the estimate assumes that all devices share the batches. On
    a CPU a large network gets smaller batches, and the time is scaled.

    Args:
        cfg: the run's configuration.
        module: the run's module; this function trains it for two steps.
        datamodule: the run's data.
        build_trainer: builds the Trainer of a configuration.

    Returns:
        effective_batch, seconds_a_batch_read, seconds_a_step, seconds_a_validation, hours, memory_gib, disk_gib.

    Raises:
        DistilPoseError: the run would fail, or the disk is too small for its files.
    """
    # Lightning checks the Trainer's settings here; the small run replaces most of them
    build_trainer(OmegaConf.merge(cfg, {"callbacks": None, "logger": None}))  # type: ignore[arg-type]
    datamodule.prepare_data()
    datamodule.setup("fit")
    loader: Any = datamodule.train_dataloader()
    in_epoch, in_validation = _batches(cfg, "train", loader), _batches(cfg, "val", datamodule.val_dataloader())
    validations, batches = _counts(cfg, in_epoch)
    steps, warmup = batches / cfg.trainer.accumulate_grad_batches, (cfg.get("scheduler") or {}).get("warmup_steps", 0)
    if warmup >= steps:
        rank_zero_only(log.warning)(
            f"scheduler.warmup_steps={warmup} covers all of the {steps:.0f} steps, so the learning rate only rises: lower it "
            "or train for longer."
        )
    persons = min(len(loader.dataset), in_epoch * datamodule.batch_size * count_processes(cfg.trainer))
    reading = _reading_time(loader)
    clock = Clock()
    with _folder_within(Path(cfg.folder)) as folder:
        trainer = build_trainer(small(cfg, folder))
        trainer.callbacks.insert(0, clock)  # type: ignore[attr-defined]
        factor, val_factor = shrink_batches(cfg, module, datamodule, trainer)
        with finish_wandb(trainer), translate_lightning_errors():
            trainer.fit(module, datamodule)
        checkpoints, per_validation = _sizes(folder)
        free = shutil.disk_usage(folder).free
    warm = clock.train[1:] if len(clock.train) > 2 else clock.train  # the first batch takes longer
    a_step = max(factor * (warm[-1] - warm[0]) / (len(warm) - 1), reading / max(1, datamodule.num_workers))
    in_batches = val_factor * (clock.val[-1] - clock.val[0]) / (len(clock.val) - 1) * in_validation
    a_validation = in_batches + clock.val_end - clock.val[-1]
    seconds = batches * a_step + validations * a_validation
    share = min(1.0, _time_limit(cfg) / seconds)
    disk = checkpoints + share * validations * per_validation
    if disk > free:
        raise DistilPoseError(
            f"{cfg.folder} has {free / 2**30:.1f} GiB free, but the run will write about {disk / 2**30:.1f} GiB: free some, "
            "or choose another hydra.run.dir."
        )
    cuda = torch.cuda.is_available() and module.device.type != "cpu"
    memory = torch.cuda.max_memory_reserved() if cuda else _peak_memory()
    label = f"memory of this process, {datamodule.batch_size} crops a batch"
    if cuda:
        label = f"GPU memory, of {torch.cuda.get_device_properties(module.device).total_memory / 2**30:.0f} GiB"
    figures = {
        "effective_batch": min(effective_batch(cfg), persons),
        "seconds_a_batch_read": reading,
        "seconds_a_step": a_step,
        "seconds_a_validation": a_validation,
        "hours": share * seconds / 3600,
        "memory_gib": memory / 2**30,
        "disk_gib": disk / 2**30,
    }
    _print_table(figures, label)
    return figures


@contextlib.contextmanager
def _folder_within(folder: Path) -> Iterator[Path]:
    """Create a temporary folder inside the run's folder, and remove it afterwards."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".check_", dir=folder) as inside:
            yield Path(inside)
    finally:
        remove_if_empty(folder)


def _reading_time(loader: Any) -> float:
    """Seconds that one process needs to read a batch."""
    start, read = time.perf_counter(), 0
    for batch in islice(loader.batch_sampler, BATCHES):
        default_collate([loader.dataset[index] for index in batch])
        read += 1
        if time.perf_counter() - start > READING_SECONDS:
            break
    return (time.perf_counter() - start) / max(1, read)


def _batches(cfg: DictConfig, kind: str, loader: Any) -> float:
    """Number of batches that a process of the run takes from a loader. A share of less than one batch is an error."""
    name = "overfit_batches" if cfg.trainer.get("overfit_batches") else f"limit_{kind}_batches"
    limit, batches = cfg.trainer.get(name), max(1.0, len(loader) / count_processes(cfg.trainer))
    if limit is None or isinstance(limit, int):
        return batches if limit is None else min(batches, limit)
    if batches * limit < 1:
        raise DistilPoseError(
            f"trainer.{name}={limit} of the {batches:.0f} available batches is less than one: give at least "
            f"{math.ceil(100 / batches) / 100}, or a whole number of batches."
        )
    return int(batches * limit)


def _counts(cfg: DictConfig, batches: float) -> tuple[float, float]:
    """Number of validations and of training batches in the run, from the batches of an epoch."""
    trainer = cfg.trainer
    epochs, every, interval = trainer.max_epochs, trainer.check_val_every_n_epoch, trainer.get("val_check_interval")
    if (steps := trainer.get("max_steps", -1)) != -1:
        epochs = min(epochs, steps / math.ceil(batches / trainer.accumulate_grad_batches))
    if every is None:  # Lightning counts batches across epochs
        return epochs * batches // (interval or batches), epochs * batches
    if isinstance(interval, int) and interval > batches:
        raise DistilPoseError(
            f"trainer.val_check_interval={interval} is more than the {batches:.0f} batches of an epoch: lower it, or let it "
            "count through epochs by trainer.check_val_every_n_epoch=null."
        )
    if isinstance(interval, float):  # a share of the epoch
        interval = max(1, int(batches * interval))
    each = int(batches // interval) if interval else 1
    every = min(every, trainer.max_epochs)
    return int(epochs * each) if every == 1 else int(epochs) // every * each, epochs * batches


def _time_limit(cfg: DictConfig) -> float:
    """Seconds until trainer.max_time ends the run."""
    limit = OmegaConf.to_container(cfg.trainer).get("max_time")  # type: ignore[union-attr]
    seconds = Timer(limit).time_remaining()  # the timer has not started, so this is the limit itself
    return math.inf if seconds is None else seconds


def _sizes(folder: Path) -> tuple[float, float]:
    """Bytes of all checkpoints (one counted twice: a new one is written before the old one goes), and of each validation."""
    sizes = {path: path.stat().st_size for path in folder.rglob("*") if path.is_file()}
    checkpoints = [size for path, size in sizes.items() if path.suffix == ".ckpt"]
    return sum(checkpoints) + max(checkpoints, default=0), sum(sizes.values()) - sum(checkpoints)


def _print_table(figures: dict[str, float], memory: str) -> None:
    table = Table(title=f"Estimate for the run, from {STEPS} steps and {STEPS} batches of validation")
    table.add_column("")
    table.add_column("", justify="right")
    table.add_row("effective batch", f"{figures['effective_batch']:.0f}")
    table.add_row("reading a batch in one process", f"{1000 * figures['seconds_a_batch_read']:.0f} ms")
    table.add_row("a batch's step", f"{1000 * figures['seconds_a_step']:.0f} ms")
    table.add_row("a validation", f"{figures['seconds_a_validation']:.1f} s")
    table.add_row(memory, f"{figures['memory_gib']:.2f} GiB")
    table.add_row("disk", f"{figures['disk_gib']:.2f} GiB")
    hours = figures["hours"]
    table.add_row("the complete run", f"{hours:.1f} hours" if hours >= 1 else f"{60 * hours:.1f} minutes")
    rank_zero_only(Console().print)(table)  # torchrun starts several processes
