"""A training run: where its files lie, and what is checked before any time is spent on it."""

from __future__ import annotations

import os
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning import Trainer
from lightning.fabric.plugins.environments import TorchElasticEnvironment
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.utilities import rank_zero_only
from omegaconf import DictConfig

from distilpose.errors import DistilPoseError, check_flag, check_number
from distilpose.evaluation import COCO_METRICS
from distilpose.skeleton import Skeleton

LIGHTNING = Path(lightning.__file__).parent
# whole numbers among the Trainer's arguments, and the least each may be
COUNTS = {
    "max_epochs": 1, "check_val_every_n_epoch": 1, "accumulate_grad_batches": 1, "num_nodes": 1, "log_every_n_steps": 0,
    "num_sanity_val_steps": -1,
}  # fmt: skip


def check_values(cfg: DictConfig) -> None:
    """Refuse numbers that could only fail later, before any time is spent."""
    check_number("seed", cfg.seed, least=0, most=2**32 - 1, whole=True)
    if cfg.threads is not None:
        check_number("threads", cfg.threads, least=1, whole=True)
    check_flag("scale_lr", cfg.scale_lr)
    check_number("reference_batch", cfg.reference_batch, least=1, whole=True)
    check_number("optimizer.lr", cfg.optimizer.lr, least=0)
    trainer = cfg.trainer
    for name, least in COUNTS.items():
        # null of check_val_every_n_epoch counts batches across epochs by val_check_interval
        if (value := trainer.get(name)) is not None:
            check_number(f"trainer.{name}", value, least=least, whole=True)
    if trainer.max_epochs is None:
        raise DistilPoseError(
            "trainer.max_epochs=null must be a whole number of at least 1: +trainer.max_steps=N beside it ends a run earlier."
        )
    if (steps := trainer.get("max_steps", -1)) != -1:
        check_number("trainer.max_steps", steps, least=1, whole=True)
    for name in ("gradient_clip_val", "overfit_batches"):
        if (value := trainer.get(name)) is not None:
            check_number(f"trainer.{name}", value, least=0)
    # without a validation no checkpoint is the best
    for name in ("limit_train_batches", "limit_val_batches", "val_check_interval"):
        if (value := trainer.get(name)) is not None:
            check_number(f"trainer.{name}", value, above=0)
    if (warmup := (cfg.scheduler or {}).get("warmup_steps")) is not None:
        check_number("scheduler.warmup_steps", warmup, least=0, whole=True)
    if trainer.get("sync_batchnorm") and count_processes(trainer) > 1 and not _on_gpus(trainer):
        raise DistilPoseError(
            "trainer.sync_batchnorm=true (trainer=ddp sets it) works on GPUs only: add trainer.sync_batchnorm=false to train "
            f"in {count_processes(trainer)} processes on a CPU."
        )


def check_processes(trainer: DictConfig) -> None:
    """Refuse as many processes of torchrun as no training has: each would train all of it, in the folder of them all."""
    if not TorchElasticEnvironment.detect():
        return
    started, wanted = int(os.environ["WORLD_SIZE"]), count_processes(trainer)
    if started != wanted:
        each = int(os.environ.get("LOCAL_WORLD_SIZE", started))
        raise DistilPoseError(
            f"torchrun has started WORLD_SIZE={started} processes, but trainer.devices={trainer.get('devices', 'auto')} "
            f"trainer.num_nodes={trainer.get('num_nodes', 1)} makes {wanted}: pass trainer.devices={each} "
            f"trainer.num_nodes={max(1, started // each)}."
        )


def check_early_stopping(callbacks: Mapping[str, Any] | None, skeleton: Skeleton) -> None:
    """Refuse an end that no validation could bring about."""
    for name, entry in (callbacks or {}).items():
        if entry and str(entry.get("_target_", "")).endswith("EarlyStopping"):
            check_number(f"callbacks.{name}.patience", entry.get("patience", 3), least=0, whole=True)
            if (monitor := str(entry.get("monitor"))).startswith("val/"):
                check_monitor(monitor, skeleton, f"callbacks.{name}.monitor")


def check_monitor(monitor: str, skeleton: Skeleton, setting: str = "data.monitor") -> None:
    """Refuse a metric to pick the best checkpoint by that no validation gives."""
    given = ["val/PCK"] if skeleton.sigmas is None else ["val/PCK", *(f"val/{name}" for name in COCO_METRICS)]
    if monitor not in given:
        why = ", and AP needs OKS sigmas (data.skeleton.sigmas)" if skeleton.sigmas is None else ""
        raise DistilPoseError(f"{setting}={monitor} is no metric of this data: expected {', '.join(given)}{why}.")


def _on_gpus(trainer: DictConfig) -> bool:
    accelerator = trainer.get("accelerator", "auto")
    return torch.cuda.is_available() and accelerator in ("auto", "gpu", "cuda")


def available_devices(accelerator: str) -> int:
    """How many devices that accelerator has here; a CPU counts as many processes as it has cores."""
    if accelerator == "cpu":
        return os.cpu_count() or 1
    if accelerator == "mps":
        return int(torch.backends.mps.is_available())
    return torch.cuda.device_count()


def count_devices(trainer: DictConfig) -> int:
    """How many devices of a node `trainer.devices` means; more than there are is an error."""
    accelerator = str(trainer.get("accelerator", "auto"))
    if accelerator == "auto" and not torch.cuda.is_available():
        accelerator = "mps" if torch.backends.mps.is_available() else "auto"
    available = available_devices(accelerator)
    devices: Any = trainer.get("devices", "auto")
    if devices in ("auto", -1, "-1"):
        return max(1, available) if accelerator != "cpu" else 1
    text = str(devices)
    wanted = int(text) if text.isdigit() else len(text.strip("[], ").split(","))
    if wanted < 1:
        raise DistilPoseError(f"trainer.devices={devices} must be at least 1, or auto.")
    # an accelerator that Lightning alone knows, it judges itself
    countable = accelerator in ("auto", "gpu", "cuda", "mps")
    if not countable or wanted <= max(available, 1 if accelerator == "auto" else 0):
        return wanted
    fewer = f"trainer.devices={available}" if available else "trainer.accelerator=auto trainer.devices=1"
    raise DistilPoseError(
        f"trainer.devices={devices} asks for {wanted} GPUs but this machine has {available}: pass {fewer}, or "
        f"trainer.accelerator=cpu trainer.devices={wanted} trainer.strategy=ddp to run as many CPU processes."
    )


def count_processes(trainer: DictConfig) -> int:
    """Processes of a training, one a device, over all nodes."""
    return count_devices(trainer) * trainer.get("num_nodes", 1)


@contextmanager
def translate_lightning_errors() -> Iterator[None]:
    """What Lightning itself refuses, and not what fails below it, as a `DistilPoseError`."""
    try:
        yield
    except (MisconfigurationException, ValueError, TypeError, RuntimeError) as error:
        place = Path(traceback.extract_tb(error.__traceback__)[-1].filename)
        own = type(error) in (ValueError, TypeError, RuntimeError) and place.is_relative_to(LIGHTNING)
        if not own and not isinstance(error, MisconfigurationException):
            raise
        told = " ".join(str(error).split()).rstrip(".")
        raise DistilPoseError(f"Lightning cannot train with these settings ({told}): correct them.") from error


def effective_batch(cfg: DictConfig) -> int:
    """Crops an optimiser step sees, over all processes and accumulated batches."""
    return cfg.data.batch_size * count_processes(cfg.trainer) * cfg.trainer.get("accumulate_grad_batches", 1)


def scaled_rate(cfg: DictConfig) -> float:
    """The learning rate, scaled with the effective batch if asked (linear scaling rule); says what both are."""
    batch, rate = effective_batch(cfg), cfg.optimizer.lr
    said = f"Effective batch {batch} (the paper's students: 256, its teachers: 512)"
    if cfg.scale_lr:
        rate = rate * batch / cfg.reference_batch
        said += f", learning rate scaled by {batch}/{cfg.reference_batch} to {rate:.3g}"
    else:
        said += f", learning rate {rate:.3g}"
    rank_zero_only(print)(said)
    return rate


def best_score(trainer: Trainer) -> float | None:
    """The best value of the monitored metric, which sweepers maximise."""
    callback = trainer.checkpoint_callback
    score = getattr(callback, "best_model_score", None)
    return None if score is None else float(score)
