"""What a run will need, found out in under a minute: `python -m distilpose.train check=true …`."""

from __future__ import annotations

import resource
import time
from itertools import islice
from typing import Any

import torch
from hydra.utils import instantiate
from lightning import Callback, LightningModule, Trainer
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.table import Table

from distilpose.data import CocoDataModule
from distilpose.modules.base import PoseModule
from distilpose.run_folders import WATCHING
from distilpose.runs import count_devices

BATCHES, STEPS = 10, 2


class Clock(Callback):
    """When each training and each validation batch ended."""

    def __init__(self) -> None:
        self.train: list[float] = []
        self.val: list[float] = []

    def on_train_batch_start(self, *args: Any) -> None:
        """Start the first batch's time."""
        self.train = self.train or [_now()]

    def on_train_batch_end(self, *args: Any) -> None:
        """Note the time."""
        self.train.append(_now())

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the validation's time."""
        self.val = [_now()]

    def on_validation_batch_end(self, *args: Any) -> None:
        """Note the time."""
        self.val.append(_now())


def _now() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def dry_run(cfg: DictConfig, module: PoseModule, datamodule: CocoDataModule) -> dict[str, float]:
    """Read ten batches, make two steps, validate on two batches, and tell what the whole run will take.

    Nothing is written. Of several devices one is used, and the time is that of its share.

    Args:
        cfg: the run's configuration; what trains beside the model, such as averaged weights, takes part.
        module: as the run would train it; it is trained two steps on.
        datamodule: as the run would read it.

    Returns:
        seconds_a_batch_read, seconds_a_step, seconds_a_validation, hours, memory_gib.
    """
    datamodule.setup("fit")
    loader = datamodule.train_dataloader()
    began = time.perf_counter()
    read = sum(1 for _ in islice(loader, BATCHES))
    reading = (time.perf_counter() - began) / max(1, read)
    clock = Clock()
    # such as averaged weights; what only watches would write
    training = [
        instantiate(entry)
        for entry in (cfg.callbacks or {}).values()
        if entry and not entry._target_.startswith(WATCHING)
    ]
    steps = STEPS * cfg.trainer.accumulate_grad_batches
    options: Any = OmegaConf.to_container(cfg.trainer, resolve=True)
    kept = {
        name: options[name] for name in ("accelerator", "precision", "accumulate_grad_batches", "gradient_clip_val")
    }
    trainer = Trainer(
        **kept, devices=1, max_epochs=1, limit_train_batches=steps, limit_val_batches=STEPS, num_sanity_val_steps=0,
        callbacks=[*training, clock], logger=False, enable_checkpointing=False, use_distributed_sampler=False,
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(module, datamodule)
    processes = options["num_nodes"] * count_devices(cfg.trainer)
    a_step = (clock.train[-1] - clock.train[1]) / max(1, len(clock.train) - 2) if len(clock.train) > 2 else 0.0
    a_step = max(a_step, reading if cfg.data.num_workers == 0 else 0.0)
    a_validation = (clock.val[-1] - clock.val[0]) / max(1, len(clock.val) - 1) * len(datamodule.val_dataloader())
    batches = len(loader) / processes
    validations = cfg.trainer.max_epochs / max(1, cfg.trainer.check_val_every_n_epoch or 1)
    seconds = cfg.trainer.max_epochs * batches * a_step + validations * a_validation / processes
    cuda = torch.cuda.is_available()
    memory = torch.cuda.max_memory_allocated() if cuda else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    figures = {
        "seconds_a_batch_read": reading,
        "seconds_a_step": a_step,
        "seconds_a_validation": a_validation,
        "hours": seconds / 3600,
        "memory_gib": memory / 2**30,
    }
    _tell(figures, "GPU memory" if cuda else "memory of this process")
    return figures


def _tell(figures: dict[str, float], memory: str) -> None:
    """The figures as a table."""
    table = Table(title="What the run will take, by two steps and two batches of validation")
    table.add_column("")
    table.add_column("", justify="right")
    reads, steps = figures["seconds_a_batch_read"], figures["seconds_a_step"]
    table.add_row("reading a batch", f"{1000 * reads:.0f} ms")
    table.add_row("a batch's step", f"{1000 * steps:.0f} ms")
    table.add_row("a validation", f"{figures['seconds_a_validation']:.1f} s")
    table.add_row(memory, f"{figures['memory_gib']:.2f} GiB")
    hours = figures["hours"]
    table.add_row("the whole run", f"{hours:.1f} hours" if hours >= 1 else f"{60 * hours:.1f} minutes")
    Console().print(table)
