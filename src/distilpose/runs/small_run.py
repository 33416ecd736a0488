"""A small version of a run: two steps and a validation in another folder, with all callbacks and loggers of the run.

Lightning's fast_dev_run is not used because it skips checkpoints, callbacks and loggers, and these are the parts that fail.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from hydra.utils import instantiate
from lightning import Trainer
from lightning.pytorch.utilities import rank_zero_only
from omegaconf import DictConfig

from distilpose.data import CocoDataModule
from distilpose.models import count_gmacs
from distilpose.modules.pose_module import PoseModule
from distilpose.runs.saved_config import rebase_paths

log = logging.getLogger(__name__)

STEPS = 2
# largest number of GMACs of each part on a CPU: some seconds
BUDGET = 60
# reports to the search's study, which a test run must not change
SKIPPED = "distilpose.callbacks.Pruning"


def small(cfg: DictConfig, folder: Path) -> DictConfig:
    """The configuration of two steps and a validation.

    Args:
        cfg: configuration of the run.
        folder: folder to write to; it replaces `cfg.folder` in all paths.
    """
    changed: Any = rebase_paths(cfg, str(cfg.folder), folder)
    steps = STEPS * cfg.trainer.accumulate_grad_batches
    overfit = steps if changed.trainer.get("overfit_batches") else 0
    changed.trainer.update(
        max_epochs=1, max_steps=-1, max_time=None, overfit_batches=overfit, limit_train_batches=steps,
        limit_val_batches=STEPS, num_sanity_val_steps=0, val_check_interval=1.0, check_val_every_n_epoch=1,
        devices=1, num_nodes=1, strategy="auto", log_every_n_steps=1, profiler=None,
        enable_model_summary=False,
    )  # fmt: skip
    changed.callbacks = {
        name: entry for name, entry in (changed.get("callbacks") or {}).items() if entry and entry._target_ != SKIPPED
    }
    for entry in (changed.get("logger") or {}).values():
        _log_here(entry, folder)
    return changed


def _log_here(entry: DictConfig, folder: Path) -> None:
    """Make a logger write only to the folder, and print where the run would log to."""
    if entry._target_.endswith("make_wandb_logger"):
        mode = instantiate(entry).mode
        rank_zero_only(log.info)(f"W&B: the run will be {mode}.")
        entry.mode = "disabled" if mode == "disabled" else "offline"
    if "tracking_uri" in entry:
        if str(folder) not in entry.tracking_uri:
            instantiate(entry)  # raises an error for a server that does not answer
            rank_zero_only(log.info)(f"MLflow: the run will be logged to {entry.tracking_uri}.")
        entry.tracking_uri = f"sqlite:///{folder}/mlflow.db"


def shrink_batches(
    cfg: DictConfig, module: PoseModule, datamodule: CocoDataModule, trainer: Trainer
) -> tuple[float, float]:
    """On a CPU, where a large network takes minutes, reduce the batches and the persons that callbacks use.

    Args:
        cfg: configuration of the run.
        module: module whose networks, student and teacher, are counted (GMACs for each crop).
        datamodule: its batches become smaller.
        trainer: the number of persons of its callbacks becomes smaller.

    Returns:
        Two factors (training, validation): batch size of the real run divided by that of the small run.
    """
    if trainer.strategy.root_device.type != "cpu":
        return 1.0, 1.0
    teacher = getattr(module, "teacher", None)
    student_gmacs, teacher_gmacs = count_gmacs(module.model), 0.0 if teacher is None else teacher.gmacs()
    batch, val_batch = datamodule.batch_size, datamodule.val_batch_size
    passes = STEPS * cfg.trainer.accumulate_grad_batches
    datamodule.batch_size = _crops(passes * (3 * student_gmacs + teacher_gmacs), batch)
    datamodule.val_batch_size = _crops(2 * STEPS * student_gmacs, val_batch)
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(getattr(callback, "persons", None), int):
            callback.persons = _crops(student_gmacs + teacher_gmacs, callback.persons)
    for part in [] if teacher is None else teacher.parts:
        if isinstance(getattr(part, "check_persons", None), int):
            part.check_persons = _crops(teacher_gmacs, part.check_persons, least=16)
    return batch / datamodule.batch_size, val_batch / datamodule.val_batch_size


def _crops(gmacs: float, wanted: int, least: int = 2) -> int:
    """The wanted number of crops, or fewer if they exceed the budget."""
    return min(wanted, max(least, int(BUDGET / max(gmacs, 1e-9))))
