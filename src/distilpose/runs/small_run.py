"""A run made small: all that takes part in it, for two steps and a validation, in another folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hydra.utils import instantiate
from lightning import Trainer
from lightning.pytorch.utilities import rank_zero_only
from omegaconf import DictConfig

from distilpose.data import CocoDataModule
from distilpose.models import count_gmacs
from distilpose.modules.base import PoseModule
from distilpose.runs.saved_config import rebase_paths

STEPS = 2
# multiplications and additions, in 10^9, that each part may take on a CPU: some seconds
BUDGET = 60
# a search's record of its trials is no part of a trial
LEFT_OUT = "distilpose.callbacks.Pruning"


def small(cfg: DictConfig, folder: Path) -> DictConfig:
    """The configuration of two steps and a validation in that folder.

    Args:
        cfg: of the run.
        folder: where all is written; `cfg.folder` is replaced by it wherever it stands.
    """
    made: Any = rebase_paths(cfg, str(cfg.folder), folder)
    steps = STEPS * cfg.trainer.accumulate_grad_batches
    overfit = steps if made.trainer.get("overfit_batches") else 0
    made.trainer.update(
        max_epochs=1, max_steps=-1, max_time=None, overfit_batches=overfit, limit_train_batches=steps,
        limit_val_batches=STEPS, num_sanity_val_steps=0, val_check_interval=1.0, check_val_every_n_epoch=1,
        devices=1, num_nodes=1, strategy="auto", log_every_n_steps=1, profiler=None,
        enable_model_summary=False,
    )  # fmt: skip
    made.callbacks = {
        name: entry for name, entry in (made.callbacks or {}).items() if entry and entry._target_ != LEFT_OUT
    }
    for entry in (made.logger or {}).values():
        _log_here(entry, folder)
    return made


def _log_here(entry: DictConfig, folder: Path) -> None:
    """Let a logger log into the folder only, and say where the run's own would."""
    if entry._target_.endswith("make_wandb_logger"):
        mode = instantiate(entry)._wandb_init["mode"]
        rank_zero_only(print)(f"W&B: the run will be {mode}.")
        entry.mode = "disabled" if mode == "disabled" else "offline"
    if "tracking_uri" in entry:
        if str(folder) not in entry.tracking_uri:
            instantiate(entry)  # refuses a server that does not answer
            rank_zero_only(print)(f"MLflow: the run will be logged to {entry.tracking_uri}.")
        entry.tracking_uri = f"sqlite:///{folder}/mlflow.db"


def shrink_batches(
    cfg: DictConfig, module: PoseModule, datamodule: CocoDataModule, trainer: Trainer
) -> tuple[float, float]:
    """On a CPU, where a large network takes minutes, make batches smaller, and look at fewer persons between them.

    Args:
        cfg: of the run.
        module: whose networks, the teacher's included, are counted (GMACs a crop).
        datamodule: its batches become smaller.
        trainer: its callbacks look at fewer persons.

    Returns:
        How many times as many crops a training and a validation batch of the run has.
    """
    if trainer.strategy.root_device.type != "cpu":
        return 1.0, 1.0
    teacher = getattr(module, "teacher", None)
    ours, theirs = (0.0 if one is None else count_gmacs(one) for one in (module.model, getattr(teacher, "model", None)))
    batch, val_batch = datamodule.batch_size, datamodule.val_batch_size
    passes = STEPS * cfg.trainer.accumulate_grad_batches
    datamodule.batch_size = _crops(passes * (3 * ours + theirs), batch)
    datamodule.val_batch_size = _crops(2 * STEPS * ours, val_batch)
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(getattr(callback, "persons", None), int):
            callback.persons = _crops(ours + theirs, callback.persons)
    if isinstance(getattr(teacher, "check_persons", None), int):
        teacher.check_persons = _crops(theirs, teacher.check_persons, least=16)  # type: ignore[union-attr]
    return batch / datamodule.batch_size, val_batch / datamodule.val_batch_size


def _crops(gmacs: float, wanted: int, least: int = 2) -> int:
    """As many crops as are wanted, or can be paid for at that price."""
    return min(wanted, max(least, int(BUDGET / max(gmacs, 1e-9))))
