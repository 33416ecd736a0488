"""What both LightningModules share: optimiser, schedule, and validation with ground-truth boxes."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.callbacks import WeightAveraging
from lightning.pytorch.utilities import rank_zero_only
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from distilpose.errors import DistilPoseError, check_flag, check_number
from distilpose.evaluation import (
    Evaluation,
    check_finite,
    check_flip_test,
    concatenate,
    evaluate_dataset,
    predict_batch,
)
from distilpose.models import PoseModel
from distilpose.modules.fine_tuning import freeze, parameter_groups
from distilpose.outputs import PoseBatch, Predictions


class PoseModule(LightningModule):
    """A pose model in training. Checkpoints carry `hyper_parameters["model"]`, from which the model is rebuilt.

    Args:
        model: student or teacher.
        optimizer: called with the parameters that are trained.
        scheduler: called with the optimiser, steps_per_epoch and total_steps; None keeps the rate.
        flip_test: average each validation crop with its mirror image.
        compile: run the model through torch.compile.
        frozen: names of modules of the model that are not trained, such as [backbone].
        layer_decay: factor on the rate from one block of the backbone to the one before, in (0, 1].
        gradient_checkpointing: compute the encoder's layers again on the way back instead of keeping them: less memory,
            more time, the same gradients.
    """

    model: PoseModel
    loss: nn.Module

    def __init__(
        self,
        model: PoseModel,
        optimizer: Callable[..., Optimizer],
        scheduler: Callable[..., LRScheduler] | None = None,
        flip_test: bool | Literal["released"] = True,
        compile: bool = False,
        frozen: Sequence[str] = (),
        layer_decay: float = 1.0,
        gradient_checkpointing: bool = False,
    ):
        super().__init__()
        self.model = model
        self.make_optimizer = optimizer
        self.make_scheduler = scheduler
        self.flip_test = check_flip_test(flip_test)
        check_flag("method.compile", compile)
        check_flag("method.gradient_checkpointing", gradient_checkpointing)
        check_number("method.layer_decay", layer_decay, above=0, most=1)
        self.layer_decay = layer_decay
        self._frozen = freeze(model, frozen)
        self.train()  # which Lightning does not call before the first validation
        if gradient_checkpointing and model.encoder is None:
            raise DistilPoseError(
                f"method.gradient_checkpointing=true: {model.name} has no encoder, whose layers it is for; leave it out."
            )
        if model.encoder is not None:
            model.encoder.checkpointing = gradient_checkpointing
        if compile:
            self.model.compile()
        self._predictions: list[Predictions] = []
        self.validated: tuple[Predictions, Evaluation] | None = None  # of the last validation, in the first process
        self._rng_state: torch.Tensor | None = None
        self._sums: dict[str, torch.Tensor] = {}  # of the epoch so far, as a checkpoint in its middle keeps them
        self._summed = 0

    def train(self, mode: bool = True) -> Any:
        """Train or evaluation mode; frozen parts stay in evaluation mode."""
        super().train(mode)
        for part in self._frozen:
            part.eval()
        return self

    def forward(self, images: torch.Tensor) -> Any:
        """The model's output for (N, 3, H, W) normalised crops."""
        return self.model(images)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Say how to rebuild the model, in plain containers that `torch.load(weights_only=True)` reads.

        The state of torch's generator comes along, for losses that draw: a resumed run draws what it would have drawn.
        """
        checkpoint["hyper_parameters"] = {"model": self.model.config}
        checkpoint["rng_state"] = torch.get_rng_state()
        sums = {  # of each process; their mean would round the last bit
            name: self.trainer.strategy.all_gather(value).reshape(-1) for name, value in self._sums.items()
        }
        checkpoint["train_sums"] = {"terms": sums, "persons": self._summed}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the generator's state until the training begins; a checkpoint of another loss is told before Lightning does."""
        own, saved = (
            {name for name in state if name.startswith("loss.")}
            for state in (self.state_dict(), checkpoint["state_dict"])
        )
        if own != saved:
            raise DistilPoseError(
                f"The checkpoint was trained with another loss ({len(saved)} of its tensors are a loss's, here {len(own)}): "
                "resume with that loss, or start a new run with weights=FILE."
            )
        if "current_model_state" in checkpoint and not self._averages():
            checkpoint["state_dict"] = checkpoint["current_model_state"]  # which its optimiser's moments are of
            rank_zero_only(print)(
                "The checkpoint's training averaged its weights and this one does not: it goes on with the raw ones."
            )
        self._rng_state = checkpoint.get("rng_state")
        sums = checkpoint.get("train_sums", {"terms": {}, "persons": 0})
        self._summed = sums["persons"]
        for name, value in sums["terms"].items():
            every = value.to(self.device).reshape(-1)
            shared_alike = len(every) == self.trainer.world_size
            self._sums[name] = every[self.trainer.global_rank] if shared_alike else every.mean()

    def _averages(self) -> bool:
        return any(isinstance(callback, WeightAveraging) for callback in self.trainer.callbacks)  # type: ignore[attr-defined]

    def on_train_start(self) -> None:
        """Take up the generator's state, after all that is drawn on the way here."""
        if self._rng_state is not None:
            torch.set_rng_state(self._rng_state)

    def on_train_epoch_start(self) -> None:
        """Begin the epoch's means; an epoch resumed in its middle goes on with those of its checkpoint."""
        self._sums, self._summed = {}, 0

    def log_terms(self, terms: Mapping[str, torch.Tensor], persons: int) -> None:
        """Log a batch's terms as train/<term>_step, and keep them for the epoch's means, train/<term>_epoch."""
        for name, value in terms.items():
            self.log(f"train/{name}_step", value.detach())
            self._sums[name] = self._sums.get(name, 0.0) + value.detach() * persons
        self._summed += persons

    def on_train_batch_end(self, outputs: Any, batch: PoseBatch, batch_idx: int) -> None:
        """Stop soon after a loss that is no number; log the epoch's means over all processes with its last batch."""
        trainer = self.trainer
        # an epoch may also end in its middle: by max_steps, by max_time
        last = trainer.is_last_batch or trainer.should_stop or trainer.global_step == trainer.max_steps
        every = max(1, trainer.log_every_n_steps)  # type: ignore[attr-defined]
        if last or (batch_idx + 1) % every == 0:  # at each, the CPU would wait for the GPU
            self.check_finite()
        if last:
            means = {f"train/{name}_epoch": value / self._summed for name, value in self._sums.items()}
            self.log_dict(means, on_step=False, on_epoch=True, sync_dist=True)

    def on_train_batch_start(self, batch: PoseBatch, batch_idx: int) -> None:
        """Log the rate of the step to come."""
        # of several rates (method.layer_decay) the full one, which is the last
        self.log("train/learning_rate", self.trainer.optimizers[0].param_groups[-1]["lr"])

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Make the gradient the mean over the accumulated batches also where an epoch ends before all are there.

        Lightning divides each batch's loss by `accumulate_grad_batches`, however many come.
        """
        wanted = self.trainer.accumulate_grad_batches
        left = self.trainer.fit_loop.epoch_loop.batch_progress.current.ready % wanted
        if left:
            for group in optimizer.param_groups:
                for parameter in group["params"]:
                    if parameter.grad is not None:
                        parameter.grad.mul_(wanted / left)

    def check_finite(self) -> None:
        """Refuse to go on with, or to save, what a loss that was no number has spoilt; all processes refuse together.

        The epoch's sums keep such a loss even where its step was left out, as mixed precision does.

        Raises:
            DistilPoseError: the training has diverged.
        """
        spoilt = [value.isfinite().logical_not().any() for value in (*self._sums.values(), *self.parameters())]
        spoilt += [buffer.isnan().any() for buffer in self.buffers() if buffer.is_floating_point()]
        if self.trainer.strategy.reduce_boolean_decision(bool(torch.stack(spoilt).any()), all=False):
            step, interval = self.trainer.global_step, self.trainer.log_every_n_steps  # type: ignore[attr-defined]
            raise DistilPoseError(
                f"The loss or the weights are no longer finite in epoch {self.current_epoch}, at step {step} or at most "
                f"{interval} before it: the training diverged, so lower optimizer.lr or lengthen scheduler.warmup_steps; "
                "the checkpoints before it are kept."
            )

    def validation_step(self, batch: PoseBatch, batch_idx: int) -> None:
        """Keep the batch's predictions, in image pixels, until the epoch's end."""
        self._predictions += predict_batch(self.model, batch, [self.flip_test])

    def on_validation_epoch_end(self) -> None:
        """Evaluate all processes' predictions once and log the figures as val/AP, val/PCK and so on."""
        mine = concatenate(self._predictions)
        self._predictions.clear()
        check_finite(mine, f"{self.model.name} in epoch {self.current_epoch}")
        if self.trainer.sanity_checking:
            return
        everyone = self._from_all_processes(mine)
        metrics: dict[str, float] = {}
        if self.trainer.is_global_zero:
            evaluation = evaluate_dataset(everyone, self.trainer.datamodule.val_dataset())  # type: ignore[attr-defined]
            metrics, self.validated = evaluation.metrics, (everyone, evaluation)
        metrics = self.trainer.strategy.broadcast(metrics)
        # all processes have the same figures, of which a mean would round the last bit
        self.log_dict({f"val/{name}": value for name, value in metrics.items()}, sync_dist=True, reduce_fx="max")

    def _from_all_processes(self, mine: Predictions) -> Predictions:
        """Every process's predictions; their numbers may differ, as no sample is evaluated twice."""
        if self.trainer.world_size == 1:
            return mine
        parts: list[Any] = [None] * self.trainer.world_size
        torch.distributed.all_gather_object(parts, tuple(mine))
        return concatenate(Predictions(*part) for part in parts)

    def configure_optimizers(self) -> Any:
        """The optimiser, and the schedule stepping once an optimiser step."""
        optimizer = self._optimizer()
        if self.make_scheduler is None:
            return optimizer
        total = int(self.trainer.estimated_stepping_batches)  # also sets num_training_batches
        per_epoch = math.ceil(self.trainer.num_training_batches / self.trainer.accumulate_grad_batches)
        schedule = self.make_scheduler(optimizer, steps_per_epoch=per_epoch, total_steps=total)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def _optimizer(self) -> Optimizer:
        """Over all that is trained, blocks of the backbone at their own rates where that is asked for."""
        if self.layer_decay == 1:
            return self.make_optimizer([parameter for parameter in self.parameters() if parameter.requires_grad])
        rate = self.make_optimizer([nn.Parameter(torch.zeros(1))]).param_groups[0]["lr"]
        return self.make_optimizer(parameter_groups(self, self.model.backbone, rate, self.layer_decay))
