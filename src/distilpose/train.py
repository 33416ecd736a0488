"""Trains a teacher or a student: `python -m distilpose.train model=student_s teacher.checkpoint=FILE`."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from hydra.utils import instantiate
from lightning import Trainer, seed_everything
from lightning.pytorch.utilities import rank_zero_only
from omegaconf import DictConfig, OmegaConf
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from distilpose.cli.command import command
from distilpose.cli.resolvers import AUTO
from distilpose.data import CocoDataModule
from distilpose.errors import DistilPoseError
from distilpose.evaluation import check_same_joints
from distilpose.loggers.wandb_logger import finish_wandb
from distilpose.models import count_gmacs, count_parameters, fit_weights, load_model, start_from, use_normalisation
from distilpose.models.checkpoint import read_torch_file
from distilpose.modules.pose_module import PoseModule
from distilpose.runs import preflight
from distilpose.runs.checkpoints import CheckpointFiles
from distilpose.runs.config import flatten
from distilpose.runs.dry_run import dry_run
from distilpose.runs.ended import ended_message
from distilpose.runs.lr_finder import find_rate
from distilpose.runs.plan import Action, Plan, decide
from distilpose.runs.resume import check_resumed, own_configuration
from distilpose.runs.saved_config import saved_config
from distilpose.runs.teacher_names import teacher_names
from distilpose.runs.train_settings import TrainSettings
from distilpose.sweeps import jobs

log = logging.getLogger(__name__)


@command("train", TrainSettings, effective=own_configuration)
def main(cfg: DictConfig) -> float | None:
    """Train one run; return the best value of the monitored metric, which sweepers maximise."""
    jobs.exit_with_parent()
    jobs.check_folder(cfg)
    plan = decide(cfg, jobs.wants_processes(cfg))
    if plan.action is not Action.TRAIN:
        return carry_out(plan)
    with jobs.exclusive_run(cfg):
        return carry_out(decide(cfg))  # decide again: another process may have trained the run meanwhile


def carry_out(plan: Plan) -> float | None:
    """Carry out the plan; return the best value of the monitored metric, or None if there is none."""
    cfg = plan.cfg
    if plan.action is Action.TRAIN:
        if plan.checkpoint is not None:
            check_resumed(cfg, plan.checkpoint, plan.resume)
        return preflight.best_score(fit(cfg, plan.checkpoint))
    if plan.action is Action.START_PROCESS:
        return jobs.run_in_subprocess(cfg)
    if plan.action is Action.SKIP:
        source = cfg.folder if plan.resume == AUTO else str(plan.resume)
        assert plan.checkpoint is not None
        content = read_torch_file(plan.checkpoint, mmap=True)
        rank_zero_only(log.info)(f"{source}: {ended_message(cfg, content, source)}")
        return plan.best
    datamodule, module = build(cfg)
    if plan.action is Action.CHECK:
        dry_run(cfg, module, datamodule, build_trainer)
    else:
        find_rate(cfg, module, datamodule)
    return None


def fit(cfg: DictConfig, checkpoint: Path | None = None) -> Trainer:
    """Build and train a model; `cfg.folder` then holds config, metrics, checkpoints and pictures.

    Args:
        cfg: configuration composed from `conf/train.yaml`.
        checkpoint: checkpoint to resume from.
    """
    datamodule, module = build(cfg, resumes=checkpoint is not None)
    if checkpoint is not None:  # Lightning's error for a damaged checkpoint, or one of another model, is hard to read
        saved = load_model(checkpoint)
        check_same_joints(checkpoint, saved.skeleton, datamodule.train_annotations, module.model.skeleton)
        fit_weights(module.model, saved.state_dict(), checkpoint)
        module.model.set_network_normalisation(saved.network_mean, saved.network_std)
    # Lightning does not know that the sampler continues within the epoch
    warnings.filterwarnings("ignore", "You're resuming from a checkpoint that ended before the epoch ended")
    with saved_config(cfg, checkpoint):
        trainer = build_trainer(cfg)
        with finish_wandb(trainer), preflight.translate_lightning_errors():
            trainer.fit(module, datamodule, ckpt_path=checkpoint, weights_only=True)
    return trainer


def build(cfg: DictConfig, resumes: bool = False) -> tuple[CocoDataModule, PoseModule]:
    """Build the data and the module of a run; see `build_module`."""
    preflight.check_devices(cfg.trainer)
    seed_everything(cfg.seed, workers=True, verbose=False)
    torch.set_float32_matmul_precision("high")
    if cfg.threads is not None:
        torch.set_num_threads(cfg.threads)
    datamodule: CocoDataModule = instantiate(cfg.data)
    preflight.check_monitors(cfg, datamodule)
    return datamodule, build_module(cfg, datamodule, resumes)


def build_module(cfg: DictConfig, datamodule: CocoDataModule, resumes: bool = False) -> PoseModule:
    """Build the LightningModule with its model, its loss and, if the loss needs one, its teacher.

    The model gets the skeleton of the data, so that any set of keypoints can be trained. If the run resumes, all weights come
    from its checkpoint: `weights=FILE`, ImageNet weights and the teacher's backbone are not read.
    """
    fresh = {"pretrained": False} if resumes and cfg.model.get("pretrained") else {}
    model = instantiate(cfg.model, _partial_=True)(skeleton=datamodule.skeleton, **fresh)
    tokens = "" if model.encoder is None else ", {} x {} visual tokens".format(*model.encoder.grid)
    rank_zero_only(log.info)(
        f"{model.name}: {count_parameters(model):,} parameters, {count_gmacs(model):.4g} GMACs a crop{tokens}"
    )
    rank_zero_only(log.info)(datamodule.skeleton.describe_pairs())
    if resumes and cfg.weights is not None:
        rank_zero_only(log.info)(f"weights={cfg.weights} is not read: the weights of the checkpoint are used.")
    elif cfg.weights is not None:
        start_from(model, load_model(cfg.weights, cfg.weights_kind), cfg.weights)
    parts = {"model": model, "loss": instantiate(cfg.loss)}
    from_teacher = cfg.method.get("backbone_from_teacher", False)
    if (resumes and from_teacher is not False) or (cfg.weights is not None and from_teacher is None):
        parts["backbone_from_teacher"] = False  # the file already contains a backbone
    if model.kind == "student" and getattr(parts["loss"], "needs_teacher", False):
        teacher = instantiate(cfg.teacher)
        # a recorded teacher needs the data that it was recorded for
        parts["teacher"] = teacher(data=datamodule) if isinstance(teacher, partial) else teacher
    elif model.kind == "student":
        for kind, which in teacher_names(flatten(OmegaConf.to_container(cfg.teacher), "teacher.")):
            rank_zero_only(log.info)(f"The loss does not use a teacher: {f'{kind} {which}'.strip()} is not read.")
    parts["optimizer"] = instantiate(cfg.optimizer, lr=preflight.scaled_rate(cfg))
    parts["scheduler"] = instantiate(cfg.scheduler) if cfg.get("scheduler") else None
    _check_recipe(parts["optimizer"], parts["scheduler"])
    module: PoseModule = instantiate(cfg.method, _partial_=True)(**parts)  # starts the backbone from the teacher's
    if not resumes:
        use_normalisation(model, cfg.model.get("mean"), cfg.model.get("std"))
    return module


def _check_recipe(optimizer: Callable[..., Optimizer], scheduler: Callable[..., LRScheduler] | None) -> None:
    """Build optimizer and schedule for a single number, as Lightning would only after the data has been read."""
    try:
        built = optimizer([torch.nn.Parameter(torch.zeros(1))])
        if scheduler is not None:
            scheduler(built, steps_per_epoch=1, total_steps=1)
    except (TypeError, ValueError) as error:
        raise DistilPoseError(
            f"The optimizer or the scheduler rejects its settings ({error}): correct optimizer.… or scheduler.…"
        ) from error


def build_trainer(cfg: DictConfig) -> Trainer:
    """Build the Trainer with all callbacks and loggers of the configuration."""
    callbacks = [instantiate(entry) for entry in (cfg.get("callbacks") or {}).values() if entry]
    loggers = [instantiate(entry) for entry in (cfg.get("logger") or {}).values() if entry]
    create = instantiate(cfg.trainer, _partial_=True, _convert_="all")
    interval = cfg.trainer.check_val_every_n_epoch
    if interval is not None:  # validate a short run at its end, for a best checkpoint and pictures
        interval = min(interval, cfg.trainer.max_epochs)
    with preflight.translate_lightning_errors():
        return create(
            callbacks=callbacks, logger=loggers, check_val_every_n_epoch=interval, plugins=[CheckpointFiles()]
        )


if __name__ == "__main__":
    main()
