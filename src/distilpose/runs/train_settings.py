"""The settings of a training that are not declared by what a configuration group builds."""

from __future__ import annotations

from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le, Unit

Share = Annotated[float, Gt(0), Le(1)]
Count = Annotated[int, Ge(1)]


class TrainerSettings:
    """Arguments of `lightning.Trainer`, with the bounds that its own annotations do not give.

    Attributes:
        max_epochs: epochs of the training. trainer.max_steps beside it ends a run earlier.
        max_steps: optimizer steps after which the training ends; -1 trains for all epochs.
        devices: how many devices of a machine, which of them as a list, or auto for all.
        num_nodes: machines of the training.
        accumulate_grad_batches: batches whose gradients are summed up for one optimizer step.
        gradient_clip_val: largest norm of the gradients; null clips none.
        limit_train_batches: batches of an epoch, as a number or as a share.
        limit_val_batches: batches of a validation, as a number or as a share.
        overfit_batches: train and validate on so many batches only, as a number or as a share.
        val_check_interval: validate every so many batches, or after such a share of an epoch.
        check_val_every_n_epoch: epochs between validations; null lets val_check_interval count through epochs.
        num_sanity_val_steps: batches of validation before the training starts; -1 takes all.
        log_every_n_steps: steps between entries of the logger; 0 logs none.
    """

    max_epochs: Annotated[int, Ge(1), Unit("epochs")]
    max_steps: Literal[-1] | Annotated[int, Ge(1), Unit("steps")]
    devices: int | str | list[int]
    num_nodes: Count
    accumulate_grad_batches: Annotated[int, Ge(1), Unit("batches")]
    gradient_clip_val: Annotated[float, Ge(0)] | None
    # without any validation no checkpoint is the best
    limit_train_batches: Count | Share | None
    limit_val_batches: Count | Share | None
    overfit_batches: Annotated[int, Ge(0)] | Annotated[float, Ge(0), Le(1)]
    val_check_interval: Count | Share | None
    check_val_every_n_epoch: Annotated[int, Ge(1), Unit("epochs")] | None
    num_sanity_val_steps: Annotated[int, Ge(-1), Unit("batches")] | None
    log_every_n_steps: Annotated[int, Ge(0), Unit("steps")] | None


class OptimizerSettings:
    """Arguments of torch's optimizers.

    Attributes:
        lr: learning rate at its highest; see scale_lr.
        weight_decay: factor of the decay.
    """

    lr: Annotated[float, Ge(0)]
    weight_decay: Annotated[float, Ge(0)]


class SchedulerSettings:
    """Arguments of schedules.

    Attributes:
        warmup_steps: optimizer steps over which the learning rate rises.
    """

    warmup_steps: Annotated[int, Ge(0), Unit("steps")]


class EarlyStoppingSettings:
    """Arguments of Lightning's EarlyStopping.

    Attributes:
        patience: validations without an improvement after which the training ends.
    """

    patience: Annotated[int, Ge(0), Unit("validations")]


class CallbackSettings:
    """Callbacks of libraries."""

    early_stopping: EarlyStoppingSettings


class TrainSettings:
    """Settings of the train command.

    Attributes:
        folder: the run's folder; set it by hydra.run.dir.
        name: of the run's folder and of its W&B run.
        seed: of the weights, of the order of persons and of the augmentation.
        check: do all of the run on a small scale, write nothing, and estimate how long the run will take.
        lr_find: raise the learning rate over 100 steps, draw the loss, and suggest a rate; trains no further.
        resume: folder of a run, or a checkpoint, to resume from; auto resumes what the run's own folder holds.
        threads: CPU threads of a process; null takes all cores.
        weights: file of weights to start from, for fine-tuning.
        weights_kind: which weights of that file, if its training has averaged them.
        scale_lr: multiply the learning rate by effective batch / reference_batch.
        reference_batch: effective batch that optimizer.lr is meant for, see scale_lr.
        trial: number of a search's trial; set by the search.
    """

    folder: str
    name: str | int | float
    seed: Annotated[int, Ge(0), Le(2**32 - 1)]
    check: bool
    lr_find: bool
    resume: str | None
    threads: Annotated[int, Ge(1)] | None
    weights: str | None
    weights_kind: Literal["averaged", "raw"]
    scale_lr: bool
    reference_batch: Annotated[int, Ge(1), Unit("crops")]
    trial: int | None
    trainer: TrainerSettings
    optimizer: OptimizerSettings
    scheduler: SchedulerSettings
    callbacks: CallbackSettings
