"""Declares the settings of a training that no class of this package declares: the command's own, and those of libraries."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le, Lt, Unit

from distilpose.cli.validate_settings import Group

Share = Annotated[float, Gt(0), Le(1)]
Count = Annotated[int, Ge(1)]


class TrainerSettings(Group):
    """Arguments of `lightning.Trainer`, with the bounds that its own annotations do not give.

    Attributes:
        max_epochs: epochs of the training. The run ends earlier if it reaches trainer.max_steps.
        max_steps: optimizer steps after which the training ends; -1 trains for all epochs.
        max_time: time after which the training ends, as DD:HH:MM:SS or as {hours: 12}.
        devices: number of devices of a machine, a list of their indices, or auto (or -1) for all.
        num_nodes: number of machines.
        accumulate_grad_batches: batches whose gradients are summed for one optimizer step.
        gradient_clip_val: largest norm of the gradients; null does not clip.
        limit_train_batches: batches of an epoch, as a number or as a share.
        limit_val_batches: batches of a validation, as a number or as a share.
        overfit_batches: train and validate on this number or share of the batches only.
        val_check_interval: validate after this number of batches, or after this share of an epoch.
        check_val_every_n_epoch: epochs between validations; with null, val_check_interval counts across epochs.
        num_sanity_val_steps: batches of validation before the training starts; -1 uses all.
        log_every_n_steps: steps between entries of the logger; 0 logs nothing.
    """

    max_epochs: Annotated[int, Ge(1), Unit("epochs")]
    max_steps: Literal[-1] | Annotated[int, Ge(1), Unit("steps")]
    max_time: str | Mapping[str, int] | None
    devices: Literal[-1] | Annotated[int, Ge(1)] | str | list[int]
    num_nodes: Count
    accumulate_grad_batches: Annotated[int, Ge(1), Unit("batches")]
    gradient_clip_val: Annotated[float, Ge(0)] | None
    # above 0: without a validation there is no best checkpoint
    limit_train_batches: Count | Share | None
    limit_val_batches: Count | Share | None
    overfit_batches: Annotated[int, Ge(0)] | Annotated[float, Ge(0), Le(1)]
    val_check_interval: Count | Share | None
    check_val_every_n_epoch: Annotated[int, Ge(1), Unit("epochs")] | None
    num_sanity_val_steps: Annotated[int, Ge(-1), Unit("batches")] | None
    log_every_n_steps: Annotated[int, Ge(0), Unit("steps")] | None
    # given by the groups callbacks and logger, and by `distilpose.train`
    callbacks: None
    logger: None
    plugins: None


class OptimizerSettings(Group):
    """Arguments of torch's optimizers.

    Attributes:
        lr: highest learning rate; see scale_lr.
        betas: decay factors of Adam's running means of the gradient and of its square.
        weight_decay: weight decay factor.
    """

    lr: Annotated[float, Ge(0)]
    betas: tuple[Annotated[float, Ge(0), Lt(1)], Annotated[float, Ge(0), Lt(1)]]
    weight_decay: Annotated[float, Ge(0)]


class SchedulerSettings(Group):
    """Arguments of learning rate schedules.

    Attributes:
        warmup_steps: optimizer steps over which the learning rate rises.
    """

    warmup_steps: Annotated[int, Ge(0), Unit("steps")]


class CheckpointSettings:
    """Arguments of Lightning's ModelCheckpoint.

    Attributes:
        monitor: metric of the best checkpoint.
        mode: whether the best value of the metric is the highest or the lowest.
    """

    monitor: str
    mode: Literal["max", "min"]


class EarlyStoppingSettings(CheckpointSettings):
    """Arguments of Lightning's EarlyStopping.

    Attributes:
        monitor: metric that must improve.
        patience: validations without an improvement after which the training ends.
    """

    patience: Annotated[int, Ge(0), Unit("validations")]


class CallbackSettings:
    """Callbacks of libraries."""

    checkpoint: CheckpointSettings | None
    early_stopping: EarlyStoppingSettings | None


class LoggerSettings:
    """Loggers, each with a `_target_`."""


class TrainSettings:
    """Settings of the train command.

    Attributes:
        folder: the run's folder; set it by hydra.run.dir.
        name: name of the run's folder and of its W&B run.
        seed: seed of the weights, of the order of persons and of the augmentation.
        check: try the complete run on a small scale, write nothing, and estimate the time of the run.
        lr_find: raise the learning rate over 100 steps, draw the loss, suggest a rate, and stop.
        resume: folder of a run, or a checkpoint, to resume from; auto resumes the run in the run's own folder.
        threads: CPU threads of a process; null uses all cores.
        weights: file of weights to start from, for fine-tuning.
        weights_kind: which weights of that file to use, if its training averaged them.
        scale_lr: multiply the learning rate by effective batch / reference_batch.
        reference_batch: effective batch for which optimizer.lr is meant, see scale_lr.
        trial: number of a search's trial; set by the search.
    """

    folder: str
    name: str | int | float
    seed: Annotated[int, Ge(0), Le(2**32 - 1)]
    check: bool
    lr_find: bool
    resume: str | None
    threads: Annotated[int, Ge(1), Le(1024)] | None
    weights: str | None
    weights_kind: Literal["averaged", "raw"]
    scale_lr: bool
    reference_batch: Annotated[int, Ge(1), Unit("crops")]
    trial: int | None
    method: Group
    model: Group
    loss: Group
    teacher: Group
    data: Group
    augmentation: Group | None
    trainer: TrainerSettings
    optimizer: OptimizerSettings
    scheduler: SchedulerSettings | None
    callbacks: CallbackSettings | None
    logger: LoggerSettings | None
