"""A training run: where its files lie, and what is checked before any time is spent on it."""

from __future__ import annotations

import os
from typing import Any

import torch
from lightning import Trainer
from lightning.pytorch.utilities import rank_zero_only
from omegaconf import DictConfig

from distilpose.errors import DistilPoseError, check_flag, check_number
from distilpose.evaluation import COCO_METRICS
from distilpose.skeleton import Skeleton


def check_values(cfg: DictConfig) -> None:
    """Refuse numbers that could only fail later, before any time is spent."""
    check_number("seed", cfg.seed, least=0, most=2**32 - 1, whole=True)
    if cfg.threads is not None:
        check_number("threads", cfg.threads, least=1, whole=True)
    check_flag("scale_lr", cfg.scale_lr)
    check_number("optimizer.lr", cfg.optimizer.lr, least=0)
    check_number("trainer.max_epochs", cfg.trainer.max_epochs, least=1, whole=True)
    if cfg.trainer.check_val_every_n_epoch is not None:  # null counts batches across epochs by val_check_interval
        check_number("trainer.check_val_every_n_epoch", cfg.trainer.check_val_every_n_epoch, least=1, whole=True)


def check_monitor(monitor: str, skeleton: Skeleton) -> None:
    """Refuse a metric to pick the best checkpoint by that no validation gives."""
    given = ["val/PCK"] if skeleton.sigmas is None else ["val/PCK", *(f"val/{name}" for name in COCO_METRICS)]
    if monitor not in given:
        why = ", and AP needs OKS sigmas (data.skeleton.sigmas)" if skeleton.sigmas is None else ""
        raise DistilPoseError(f"data.monitor={monitor} is no metric of this data: expected {', '.join(given)}{why}.")


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
