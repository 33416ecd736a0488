"""Checks before a training starts: devices, number of processes, monitored metrics.

Single settings are validated by `distilpose.cli.validate_settings`. Lightning counts devices too late: when it builds its
Trainer, the learning rate has already been scaled by their number.
"""

from __future__ import annotations

import logging
import os
import re
import traceback
from collections.abc import Iterator
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

from distilpose.data import CocoDataModule
from distilpose.errors import DistilPoseError
from distilpose.evaluation import COCO_METRICS, has_value
from distilpose.evaluation.pck import torso_diagonals
from distilpose.skeleton import Skeleton

log = logging.getLogger(__name__)

LIGHTNING = Path(lightning.__file__).parent
# errors of Lightning that are about its arguments; others, such as a subclass for a lost process, have another cause
BUILTIN = (ValueError, TypeError, RuntimeError, AttributeError, ModuleNotFoundError)
# logged values that callbacks can monitor, besides the metrics that every validation computes
LOGGED = re.compile(r"train/\w+_(epoch|step)|train/(learning_rate|share_\w+)|health/\w+|val/PCK_(upright|other)")


def check_devices(trainer: DictConfig) -> None:
    """Check that the machine has the devices, that torchrun has started their processes, and that batch norms can sync.

    With another number of processes, each would run the complete training, in the same folder.
    """
    wanted = count_processes(trainer)
    on_gpus = torch.cuda.is_available() and trainer.get("accelerator", "auto") in ("auto", "gpu", "cuda")
    if trainer.get("sync_batchnorm") and wanted > 1 and not on_gpus:
        raise DistilPoseError(
            "trainer.sync_batchnorm=true (trainer=ddp sets it) works on GPUs only: add trainer.sync_batchnorm=false to train "
            f"in {wanted} processes on a CPU."
        )
    if TorchElasticEnvironment.detect() and (started := int(os.environ["WORLD_SIZE"])) != wanted:
        each = int(os.environ.get("LOCAL_WORLD_SIZE", started))
        raise DistilPoseError(
            f"torchrun has started WORLD_SIZE={started} processes, but trainer.devices={trainer.get('devices', 'auto')} "
            f"trainer.num_nodes={trainer.get('num_nodes', 1)} makes {wanted}: pass trainer.devices={each} "
            f"trainer.num_nodes={max(1, started // each)}."
        )


def check_monitors(cfg: DictConfig, datamodule: CocoDataModule) -> None:
    """Check data.monitor and the metric of each callback that monitors one.

    Callbacks of other packages may log values of their own, which then may be monitored.
    """
    check_monitor(datamodule.monitor, datamodule.skeleton)
    callbacks = {name: entry for name, entry in (cfg.get("callbacks") or {}).items() if entry}
    known = all(str(entry.get("_target_")).startswith(("distilpose.", "lightning.")) for entry in callbacks.values())
    for name, entry in callbacks.items():
        monitor = entry.get("monitor")
        checked = monitor is not None and (known or monitor.startswith("val/"))
        if checked and not LOGGED.fullmatch(monitor):
            check_monitor(monitor, datamodule.skeleton, f"callbacks.{name}.monitor")


def check_monitor(monitor: str, skeleton: Skeleton, setting: str = "data.monitor") -> None:
    """Raise an error for a metric that a validation with this skeleton does not compute."""
    available = ["val/PCK", *(["val/PCK_box"] if torso_diagonals(skeleton) else [])]
    available += [f"val/{name}" for name in COCO_METRICS if skeleton.sigmas is not None]
    if monitor not in available:
        why = ", and AP needs OKS sigmas (data.skeleton.sigmas)" if skeleton.sigmas is None else ""
        raise DistilPoseError(
            f"{setting}={monitor} is not a metric of this data: expected {', '.join(available)}{why}."
        )


def count_devices(trainer: DictConfig) -> int:
    """The number of devices that `trainer.devices` uses on one machine.

    Raises:
        DistilPoseError: the machine has fewer GPUs. With trainer.accelerator=auto Lightning would train on the CPU.
    """
    accelerator = str(trainer.get("accelerator", "auto"))
    if accelerator == "auto" and not torch.cuda.is_available():
        accelerator = "mps" if torch.backends.mps.is_available() else "auto"
    available = int(torch.backends.mps.is_available()) if accelerator == "mps" else torch.cuda.device_count()
    devices: Any = trainer.get("devices", "auto")
    if devices in ("auto", -1, "-1"):
        return max(1, available) if accelerator != "cpu" else 1
    text = str(devices)
    wanted = int(text) if text.isdigit() else len(text.strip("[], ").split(","))
    # Lightning counts the devices of other accelerators
    countable = accelerator in ("auto", "gpu", "cuda", "mps")
    if not countable or wanted <= max(available, 1 if accelerator == "auto" else 0):
        return wanted
    fewer = f"trainer.devices={available}" if available else "trainer.accelerator=auto trainer.devices=1"
    raise DistilPoseError(
        f"trainer.devices={devices} asks for {wanted} GPUs but this machine has {available}: pass {fewer}, or "
        f"trainer.accelerator=cpu trainer.devices={wanted} trainer.strategy=ddp to run as many CPU processes."
    )


def count_processes(trainer: DictConfig) -> int:
    """Number of processes of a training: one for each device of all machines."""
    return count_devices(trainer) * trainer.get("num_nodes", 1)


@contextmanager
def translate_lightning_errors() -> Iterator[None]:
    """Raise a `DistilPoseError` for an error that Lightning itself raises, and leave errors of other code as they are."""
    try:
        yield
    except (MisconfigurationException, *BUILTIN) as error:
        raised_in = Path(traceback.extract_tb(error.__traceback__)[-1].filename)
        builtin = type(error) in BUILTIN and raised_in.is_relative_to(LIGHTNING)
        if not builtin and not isinstance(error, MisconfigurationException):
            raise
        message = " ".join(str(error).split()).rstrip(".")
        raise DistilPoseError(f"Lightning cannot train with these settings ({message}): correct them.") from error


def effective_batch(cfg: DictConfig) -> int:
    """Crops of one optimizer step, over all processes and accumulated batches."""
    return cfg.data.batch_size * count_processes(cfg.trainer) * cfg.trainer.get("accumulate_grad_batches", 1)


def scaled_rate(cfg: DictConfig) -> float:
    """The learning rate, multiplied by effective batch / reference batch if `scale_lr` is set. Logs rate and batch."""
    batch, rate = effective_batch(cfg), cfg.optimizer.lr
    message = f"Effective batch {batch} (the paper's students: 256, its teachers: 512)"
    if cfg.scale_lr:
        rate = rate * batch / cfg.reference_batch
        message += f", learning rate scaled by {batch}/{cfg.reference_batch} to {rate:.3g}"
    else:
        message += f", learning rate {rate:.3g}"
    rank_zero_only(log.info)(message)
    return rate


def best_score(trainer: Trainer) -> float | None:
    """The best value of the monitored metric, which sweepers maximise; None if it never had a value."""
    score = getattr(trainer.checkpoint_callback, "best_model_score", None)
    value = None if score is None else float(score)
    return value if has_value(str(getattr(trainer.checkpoint_callback, "monitor", "")), value) else None
