"""Train a teacher or a student: `python -m distilpose.train model=student_s teacher.checkpoint=FILE`."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial

import torch
from hydra.utils import instantiate
from lightning import Trainer, seed_everything
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.utilities import rank_zero_only
from omegaconf import DictConfig, OmegaConf
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from distilpose.cli.command import command
from distilpose.data import CocoDataModule
from distilpose.errors import DistilPoseError, check_flag
from distilpose.loggers.wandb_logger import finish_wandb
from distilpose.models import fit_weights, load_model
from distilpose.modules.base import PoseModule
from distilpose.runs import resume, validation
from distilpose.runs.checkpoints import CheckpointFiles
from distilpose.runs.dry_run import dry_run
from distilpose.runs.folders import best_value
from distilpose.runs.lr_finder import find_rate
from distilpose.runs.settings import TrainSettings
from distilpose.sweeps import jobs


@command("train", TrainSettings)
def main(cfg: DictConfig) -> float | None:
    """One run; sweepers maximise what is returned, the best value of the monitored metric."""
    jobs.exit_with_parent()
    check_flag("check", cfg.check)
    check_flag("lr_find", cfg.lr_find)
    jobs.check_folder(cfg)
    if cfg.check and cfg.lr_find:
        raise DistilPoseError("check=true and lr_find=true are two questions: ask them one after the other.")
    if (cfg.check or cfg.lr_find) and cfg.resume not in (None, resume.AUTO):
        cfg, _ = resume.resume(cfg)  # of the run in that folder
    if cfg.check:
        check(cfg)
        return None
    if cfg.lr_find:
        datamodule, module = build(cfg)
        find_rate(cfg, module, datamodule)
        return None
    metrics = resume.finished(cfg)
    if metrics is None and jobs.wants_processes(cfg):
        return jobs.run_in_subprocess(cfg)
    with jobs.exclusive_run(cfg) as waited:
        if waited:  # for one that may have run to its end
            metrics = resume.finished(cfg)
        if metrics is not None:
            place = cfg.folder if cfg.resume == resume.AUTO else cfg.resume
            more = f"resume='{place}' with a larger trainer.max_epochs trains it further"
            rank_zero_only(print)(f"{place} has run to its end already: {more}.")
            return best_value(metrics)
        cfg, checkpoint = resume.resume(cfg)
        return validation.best_score(fit(cfg, checkpoint))


def check(cfg: DictConfig) -> dict[str, float]:
    """Do on a small scale all that the run will do, write nothing, and tell how long it will take."""
    if "may_record" in cfg.teacher:  # which can take hours, and stays
        cfg = OmegaConf.merge(cfg, {"teacher": {"may_record": False}})  # type: ignore[assignment]
    datamodule, module = build(cfg)
    return dry_run(cfg, module, datamodule, build_trainer)


def fit(cfg: DictConfig, checkpoint: str | None = None) -> Trainer:
    """Build what `cfg` composes and train it; `cfg.folder` then holds config, metrics, checkpoints and pictures.

    Args:
        cfg: as composed from `conf/train.yaml`.
        checkpoint: to go on from.
    """
    datamodule, module = build(cfg)
    if checkpoint is not None:  # damaged or of another model, it is told in a sentence here and in long by Lightning
        fit_weights(module.model, load_model(checkpoint).state_dict(), checkpoint)
    # Lightning cannot know that the sampler goes on where it was
    warnings.filterwarnings("ignore", "You're resuming from a checkpoint that ended before the epoch ended")
    with resume.saved_config(cfg, checkpoint):
        trainer = build_trainer(cfg)
        with finish_wandb(trainer), validation.translate_lightning_errors():
            trainer.fit(module, datamodule, ckpt_path=checkpoint, weights_only=True)
    return trainer


def build(cfg: DictConfig) -> tuple[CocoDataModule, PoseModule]:
    """The data and the module of a run, after its values have been looked at."""
    validation.check_values(cfg)
    validation.count_devices(cfg.trainer)
    validation.check_processes(cfg.trainer)
    seed_everything(cfg.seed, workers=True, verbose=False)
    torch.set_float32_matmul_precision("high")
    if cfg.threads is not None:
        torch.set_num_threads(cfg.threads)

    datamodule: CocoDataModule = instantiate(cfg.data)
    validation.check_monitor(datamodule.monitor, datamodule.skeleton)
    validation.check_early_stopping(cfg.callbacks, datamodule.skeleton)
    return datamodule, build_module(cfg, datamodule)


def build_module(cfg: DictConfig, datamodule: CocoDataModule) -> PoseModule:
    """The LightningModule with its model, loss and, where the loss needs one, teacher.

    The model takes the skeleton of the data, so that any set of keypoints trains without code.
    """
    model = instantiate(cfg.model, _partial_=True)(skeleton=datamodule.skeleton)
    if cfg.weights is not None:
        fit_weights(model, load_model(cfg.weights, cfg.weights_kind).state_dict(), cfg.weights)
    parts = {"model": model, "loss": instantiate(cfg.loss)}
    if cfg.weights is not None and cfg.method.get("backbone_from_teacher", False) is None:
        parts["backbone_from_teacher"] = False  # the backbone asked for is the file's
    if model.kind == "student" and getattr(parts["loss"], "needs_teacher", False):
        teacher = instantiate(cfg.teacher)
        # one that is recorded for these persons takes the data
        parts["teacher"] = teacher(data=datamodule) if isinstance(teacher, partial) else teacher
    elif model.kind == "student" and cfg.teacher.get("checkpoint") is not None:
        print(f"The loss has no use for a teacher: teacher.checkpoint={cfg.teacher.checkpoint} is not read.")
    parts["optimizer"] = instantiate(cfg.optimizer, lr=validation.scaled_rate(cfg))
    parts["scheduler"] = instantiate(cfg.scheduler) if cfg.scheduler else None
    check_recipe(parts["optimizer"], parts["scheduler"])
    return instantiate(cfg.method, _partial_=True)(**parts)


def check_recipe(optimizer: Callable[..., Optimizer], scheduler: Callable[..., LRScheduler] | None) -> None:
    """Refuse settings that the optimiser or the schedule does not take, by making both once for a single number."""
    try:
        made = optimizer([torch.nn.Parameter(torch.zeros(1))])
        if scheduler is not None:
            scheduler(made, steps_per_epoch=1, total_steps=1)
    except (TypeError, ValueError) as error:
        raise DistilPoseError(
            f"The optimizer or the scheduler does not take its settings ({error}): correct optimizer.… or scheduler.…"
        ) from error


def build_trainer(cfg: DictConfig) -> Trainer:
    """The Trainer with every callback and logger of the configuration."""
    callbacks = [instantiate(entry) for entry in (cfg.callbacks or {}).values() if entry]
    loggers = [instantiate(entry) for entry in (cfg.logger or {}).values() if entry]
    make = instantiate(cfg.trainer, _partial_=True)
    interval = cfg.trainer.check_val_every_n_epoch
    if interval is not None:  # a short run is validated at its end, for a best checkpoint and pictures
        interval = min(interval, cfg.trainer.max_epochs)
    try:
        return make(callbacks=callbacks, logger=loggers, check_val_every_n_epoch=interval, plugins=[CheckpointFiles()])
    except (TypeError, ValueError, MisconfigurationException) as error:
        raise DistilPoseError(f"Lightning's Trainer does not take its settings ({error}): correct trainer.…") from error


if __name__ == "__main__":
    main()
