"""Train a teacher or a student: `python -m distilpose.train model=student_s teacher.checkpoint=FILE`."""

from __future__ import annotations

import torch
from hydra.utils import instantiate
from lightning import LightningModule, Trainer, seed_everything
from omegaconf import DictConfig

from distilpose import runs
from distilpose.callbacks.wandb_run import finish_wandb
from distilpose.command import command
from distilpose.data import CocoDataModule
from distilpose.models import fit_weights, load_model


@command("train")
def main(cfg: DictConfig) -> float | None:
    """One run; sweepers maximise what is returned, the best value of the monitored metric."""
    cfg, checkpoint = runs.resume(cfg)
    return runs.best_score(fit(cfg, checkpoint))


def fit(cfg: DictConfig, checkpoint: str | None = None) -> Trainer:
    """Build what `cfg` composes and train it; `cfg.folder` then holds config, metrics, checkpoints and pictures.

    Args:
        cfg: as composed from `conf/train.yaml`.
        checkpoint: to go on from.
    """
    runs.count_devices(cfg.trainer)
    seed_everything(cfg.seed, workers=True, verbose=False)
    torch.set_float32_matmul_precision("high")
    if cfg.threads is not None:
        torch.set_num_threads(cfg.threads)

    datamodule: CocoDataModule = instantiate(cfg.data)
    module = build_module(cfg, datamodule)
    with runs.saved_config(cfg, checkpoint):
        trainer = build_trainer(cfg)
        with finish_wandb(trainer):
            trainer.fit(module, datamodule, ckpt_path=checkpoint, weights_only=True)
    return trainer


def build_module(cfg: DictConfig, datamodule: CocoDataModule) -> LightningModule:
    """The LightningModule with its model, loss and, where the loss needs one, teacher.

    The model takes the skeleton of the data, so that any set of keypoints trains without code.
    """
    model = instantiate(cfg.model, _partial_=True)(skeleton=datamodule.skeleton)
    if cfg.weights is not None:
        fit_weights(model, load_model(cfg.weights).state_dict(), cfg.weights)
        if cfg.method.get("backbone_from_teacher", False) is None:
            cfg.method.backbone_from_teacher = False  # the backbone asked for is the file's
    parts = {"model": model, "loss": instantiate(cfg.loss)}
    if getattr(parts["loss"], "needs_teacher", False):
        parts["teacher"] = instantiate(cfg.teacher)
    parts["optimizer"] = instantiate(cfg.optimizer, lr=runs.scaled_rate(cfg))
    parts["scheduler"] = instantiate(cfg.scheduler) if cfg.scheduler else None
    return instantiate(cfg.method, _partial_=True)(**parts)


def build_trainer(cfg: DictConfig) -> Trainer:
    """The Trainer with every callback and logger of the configuration."""
    callbacks = [instantiate(entry) for entry in (cfg.callbacks or {}).values() if entry]
    loggers = [instantiate(entry) for entry in (cfg.logger or {}).values() if entry]
    return instantiate(cfg.trainer, _partial_=True)(callbacks=callbacks, logger=loggers)


if __name__ == "__main__":
    main()
