"""A training run as a folder: its configuration, going on from it, and what is checked before time is spent."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from hydra.core.hydra_config import HydraConfig
from lightning import Trainer
from lightning.pytorch.utilities import rank_zero_only
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigKeyError

from distilpose.errors import DistilPoseError, check_flag, check_number
from distilpose.evaluation import COCO_METRICS
from distilpose.files import write_text
from distilpose.skeleton import Skeleton

CONFIG = "config.yaml"
LAST_CHECKPOINT = Path("checkpoints") / "last.ckpt"


def run_directory(resume: str | None, fresh: str) -> str:
    """Where a run writes: the folder it goes on in, or a fresh one."""
    return resume if resume and Path(resume).is_dir() else fresh


OmegaConf.register_new_resolver("run_directory", run_directory, replace=True)


def resume(cfg: DictConfig) -> tuple[DictConfig, str | None]:
    """The configuration to run and the checkpoint to go on from, if any.

    With `resume=FOLDER` that is the folder's own configuration, changed only by the values on the command line, and its
    last checkpoint. With `resume=FILE` it is the configuration as composed and that checkpoint.
    """
    if cfg.resume is None:
        return cfg, None
    place = Path(cfg.resume)
    if place.is_file():
        return cfg, str(place)
    checkpoint = place / LAST_CHECKPOINT
    if not checkpoint.is_file() or not (place / CONFIG).is_file():
        raise DistilPoseError(
            f"resume={cfg.resume} holds no {CONFIG} with {LAST_CHECKPOINT}: give the folder of a run that has finished at "
            "least one epoch, or a checkpoint file."
        )
    saved = (place / CONFIG).read_text()
    old = OmegaConf.create(saved)
    # the folder may have been moved since
    moved = re.sub(rf"{re.escape(old.folder)}(?=[/\s'\"]|$)", lambda _: str(place.resolve()), saved)
    old = OmegaConf.create(moved)
    changes = [change for change in HydraConfig.get().overrides.task if not change.startswith("resume=")]
    choices = HydraConfig.get().runtime.choices
    refused = [change for change in changes if change.startswith("~") or change.lstrip("+").split("=")[0] in choices]
    if refused:
        raise DistilPoseError(
            f"A resumed run keeps its configuration but for single values, so {refused} cannot be changed: leave them "
            "out, or start a new run with weights=FILE."
        )
    kept = [change for change in changes if change.lstrip("+").startswith("optimizer.")]
    if kept:
        raise DistilPoseError(
            f"A resumed run keeps its optimizer's state, rate included, so {kept} would change nothing: leave them out, or "
            "start a new run with weights=FILE."
        )
    added = [change.lstrip("+") for change in changes if change.startswith("+")]
    OmegaConf.set_struct(old, True)
    try:
        changed = OmegaConf.merge(old, OmegaConf.from_dotlist([change for change in changes if change[0] != "+"]))
    except ConfigKeyError as error:
        raise DistilPoseError(
            f"The run in {cfg.resume} has no setting {error.full_key}: see its {CONFIG}, or add it by +{error.full_key}=…"
        ) from error
    OmegaConf.set_struct(changed, False)
    return OmegaConf.merge(changed, OmegaConf.from_dotlist(added)), str(checkpoint)  # type: ignore[return-value]


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


@contextmanager
def saved_config(cfg: DictConfig, checkpoint: str | None = None) -> Iterator[None]:
    """The resolved configuration in the run's folder, which may hold no run other than the checkpoint's.

    Where the block fails before it has saved a checkpoint, what was there before is put back, so that the same command runs
    again.
    """
    folder = Path(cfg.folder)
    goes_on = checkpoint is not None and Path(checkpoint).resolve().is_relative_to(folder.resolve())
    before = (folder / CONFIG).read_text() if goes_on and (folder / CONFIG).exists() else None
    saved_at = _saved_at(folder)
    _write_config(cfg, goes_on)
    try:
        yield
    except BaseException:
        if _saved_at(folder) == saved_at:
            _take_config_back(folder, before)
        raise


def _saved_at(folder: Path) -> float | None:
    """When the last checkpoint was written; None without one."""
    place = folder / LAST_CHECKPOINT
    return place.stat().st_mtime if place.exists() else None


@rank_zero_only
def _write_config(cfg: DictConfig, goes_on: bool) -> None:
    place = Path(cfg.folder) / CONFIG
    if place.exists() and not goes_on and _saved_at(place.parent) is None:
        raise DistilPoseError(
            f"'{place}' is there but no checkpoint, as after a run that was killed in its first epoch: remove that file, or "
            "choose another hydra.run.dir."
        )
    if place.exists() and not goes_on:
        raise DistilPoseError(
            f"'{cfg.folder}' already holds a run: go on with it by resume={cfg.folder}, or choose another hydra.run.dir."
        )
    write_text(OmegaConf.to_yaml(cfg, resolve=True), place)


@rank_zero_only
def _take_config_back(folder: Path, before: str | None) -> None:
    if before is None:
        (folder / CONFIG).unlink(missing_ok=True)
    else:
        write_text(before, folder / CONFIG)


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


def effective_batch(cfg: DictConfig) -> int:
    """Crops an optimiser step sees, over all devices, nodes and accumulated batches."""
    trainer = cfg.trainer
    return (
        cfg.data.batch_size
        * count_devices(trainer)
        * trainer.get("num_nodes", 1)
        * trainer.get("accumulate_grad_batches", 1)
    )


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
