"""Base of both LightningModules: optimizer, schedule, and validation with ground-truth boxes."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any

import torch
from annotated_types import Gt, Le
from lightning.pytorch import LightningModule
from lightning.pytorch.callbacks import WeightAveraging
from lightning.pytorch.utilities import rank_zero_only
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from distilpose.errors import DistilPoseError
from distilpose.evaluation import Evaluation, FlipTest, check_finite, predict_batch
from distilpose.models import PoseModel
from distilpose.models.prediction_settings import prediction_settings
from distilpose.modules.divergence import check_divergence
from distilpose.modules.fine_tuning import freeze, parameter_groups
from distilpose.modules.processes import from_all_processes, from_first_process
from distilpose.modules.resumed_epoch import check_same_loss, keep_own_patience, own_share, rescale_progress
from distilpose.modules.validation import Validation, check_monitors
from distilpose.outputs import PoseBatch, Predictions

log = logging.getLogger(__name__)


class PoseModule(LightningModule):
    """A pose model in training. Checkpoints hold everything that decides its predictions in `hyper_parameters`.

    Args:
        model: student or teacher.
        optimizer: called with the trained parameters.
        scheduler: called with the optimizer, steps_per_epoch and total_steps; null keeps the learning rate constant.
        flip_test: average the predictions for each validation crop and its mirror image; "released" averages as the release.
        compile: run the model through torch.compile.
        frozen: names of modules of the model that are not trained, such as [backbone].
        layer_decay: factor on the learning rate from one block of the backbone to the one before.
        gradient_checkpointing: recompute the encoder's activations in the backward pass: less memory, more time, the same
            gradients.
        channels_last: convolve in NHWC, which is faster on a CPU and in half precision on a GPU; roundings differ.

    Attributes:
        validated: predictions and evaluation of the last validation, in the process of rank 0; None before it.
        epoch_sums: sum of each loss term over the persons of the epoch so far. Checkpoints within an epoch hold the sums.
    """

    model: PoseModel
    loss: nn.Module

    def __init__(
        self,
        model: PoseModel,
        optimizer: Callable[..., Optimizer],
        scheduler: Callable[..., LRScheduler] | None = None,
        flip_test: FlipTest = True,
        compile: bool = False,
        frozen: Sequence[str] = (),
        layer_decay: Annotated[float, Gt(0), Le(1)] = 1.0,
        gradient_checkpointing: bool = False,
        channels_last: bool = False,
    ):
        super().__init__()
        self.model = model.to(memory_format=torch.channels_last) if channels_last else model
        self.make_optimizer = optimizer
        self.make_scheduler = scheduler
        self.flip_test: FlipTest = flip_test
        self.layer_decay = layer_decay
        self._frozen = freeze(model, frozen)
        self.train()  # Lightning calls it only after the first validation
        model.set_grad_checkpointing(gradient_checkpointing)
        if compile:
            self.model.compile()
        self._predictions: list[Predictions] = []
        self.validated: tuple[Predictions, Evaluation] | None = None
        self._rng_state: torch.Tensor | None = None
        self.epoch_sums: dict[str, torch.Tensor] = {}
        self._epoch_persons = 0
        self._means_logged = False
        self._validation = Validation()

    def train(self, mode: bool = True) -> Any:
        """Set training or evaluation mode; frozen parts stay in evaluation mode."""
        super().train(mode)
        for part in self._frozen:
            part.eval()
        return self

    def forward(self, images: torch.Tensor) -> Any:
        """The model's output for (N, 3, H, W) normalised crops."""
        return self.model(images)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what decides the model's predictions, in plain containers that `torch.load(weights_only=True)` reads.

        The state of torch's generator is saved too, so that a resumed run draws the same random numbers.
        """
        # without a trainer, the property of that name is an error
        padding = getattr(getattr(self._trainer, "datamodule", None), "padding", None)
        self.model.padding = self.model.padding if padding is None else float(padding)
        self.model.flip_test = self.flip_test
        checkpoint["hyper_parameters"] = {"model": self.model.config, "prediction": prediction_settings(self.model)}
        checkpoint["rng_state"] = torch.get_rng_state()
        sums = {  # one sum for each process, because their mean would be rounded
            name: self.trainer.strategy.all_gather(value).reshape(-1) for name, value in self.epoch_sums.items()
        }
        checkpoint["train_sums"] = {"terms": sums, "persons": self._epoch_persons}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Read the generator's state and the epoch's sums. Without weight averaging, choose the raw weights.

        Raises:
            DistilPoseError: the checkpoint was trained with another loss.
        """
        check_same_loss(checkpoint, self.state_dict())
        if "current_model_state" in checkpoint and not self._averages():
            # the optimizer's state belongs to the raw weights
            checkpoint["state_dict"] = checkpoint["current_model_state"]
            rank_zero_only(log.info)(
                "The checkpoint's training averaged its weights and this one does not: it resumes from the raw weights."
            )
        self._rng_state = checkpoint.get("rng_state")
        keep_own_patience(checkpoint, self.trainer.callbacks)  # type: ignore[attr-defined]
        rescale_progress(checkpoint, self.trainer.accumulate_grad_batches)
        sums = checkpoint.get("train_sums", {"terms": {}, "persons": 0})
        by_rank = {name: value.to(self.device).reshape(-1) for name, value in sums["terms"].items()}
        self.epoch_sums, self._epoch_persons = own_share(
            by_rank, sums["persons"], self.trainer.world_size, self.trainer.global_rank
        )

    def _averages(self) -> bool:
        return any(isinstance(callback, WeightAveraging) for callback in self.trainer.callbacks)  # type: ignore[attr-defined]

    def setup(self, stage: str) -> None:
        """Check that the metrics that callbacks monitor have a value on the validation persons."""
        if stage == "fit" and self.trainer.datamodule is not None:  # type: ignore[attr-defined]
            check_monitors(self.trainer)

    def on_fit_start(self) -> None:
        """Raise an error if no training person has a label."""
        if not self.trainer.datamodule.train_dataset().instances.labelled.any():  # type: ignore[attr-defined]
            raise DistilPoseError(
                "No training person has a label and no teacher is used: give labels, or train a student with a teacher."
            )

    def on_train_start(self) -> None:
        """Restore the generator's state; nothing draws random numbers between this and the first batch."""
        if self._rng_state is not None:
            torch.set_rng_state(self._rng_state)

    def on_train_epoch_start(self) -> None:
        """Reset the epoch's sums; Lightning does not call this for an epoch that is resumed in its middle."""
        self.epoch_sums, self._epoch_persons, self._means_logged = {}, 0, False

    def log_terms(self, terms: Mapping[str, torch.Tensor], persons: int) -> None:
        """Log a batch's terms as train/<term>_step, and add them to the epoch's means, train/<term>_epoch."""
        for name, value in terms.items():
            self.log(f"train/{name}_step", value.detach())
            self.epoch_sums[name] = self.epoch_sums.get(name, 0.0) + value.detach() * persons
        self._epoch_persons += persons

    def on_train_batch_end(self, outputs: Any, batch: PoseBatch, batch_idx: int) -> None:
        """Stop a diverged training."""
        trainer = self.trainer
        # an epoch also ends in its middle by max_steps or max_time
        last = trainer.is_last_batch or trainer.should_stop or trainer.global_step == trainer.max_steps
        every = max(1, trainer.log_every_n_steps)  # type: ignore[attr-defined]
        if last or (batch_idx + 1) % every == 0:
            check_divergence(self)

    def on_train_epoch_end(self) -> None:
        """Log the epoch's means."""
        self.log_epoch_means()

    def log_epoch_means(self) -> None:
        """Log the epoch's means over all processes, once.

        Callbacks that read them at the end of an epoch call this first, in all processes. It is not known earlier which batch
        is an epoch's last: a validation within the epoch may stop it.
        """
        if self._means_logged or not self._epoch_persons:
            return
        self._means_logged = True
        means = {f"train/{name}_epoch": value / self._epoch_persons for name, value in self.epoch_sums.items()}
        self.log_dict(means, on_step=False, on_epoch=True, sync_dist=True)

    def on_train_batch_start(self, batch: PoseBatch, batch_idx: int) -> None:
        """Log the learning rate of the next step."""
        # with method.layer_decay the last group has the full learning rate
        self.log("train/learning_rate", self.trainer.optimizers[0].param_groups[-1]["lr"])

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Make the gradient the mean over the accumulated batches when an epoch ends before all of them.

        Lightning divides each batch's loss by `accumulate_grad_batches`, even if fewer batches are left.
        """
        wanted = self.trainer.accumulate_grad_batches
        left = self.trainer.fit_loop.epoch_loop.batch_progress.current.ready % wanted
        if left:
            for group in optimizer.param_groups:
                for parameter in group["params"]:
                    if parameter.grad is not None:
                        parameter.grad.mul_(wanted / left)

    def validation_step(self, batch: PoseBatch, batch_idx: int) -> None:
        """Store the batch's predictions, in image pixels, until the end of the epoch."""
        self._predictions += predict_batch(self.model, batch, [self.flip_test])

    def on_validation_epoch_end(self) -> None:
        """Evaluate the predictions of all processes and log the metrics as val/AP, val/PCK and so on.

        If only some persons were shown, val/persons is their number.
        """
        predictions = from_all_processes(self.trainer, self._predictions)
        self._predictions.clear()
        # those of all processes, so that all of them raise
        check_finite(predictions, f"{self.model.name} in epoch {self.current_epoch}")
        if self.trainer.sanity_checking:
            return
        metrics = from_first_process(self.trainer, lambda: self._evaluate(predictions))
        # all processes have the same metrics; max returns them unchanged, and a mean would round them
        self.log_dict({f"val/{name}": value for name, value in metrics.items()}, sync_dist=True, reduce_fx="max")

    def _evaluate(self, predictions: Predictions) -> dict[str, float]:
        """Metrics of the predictions of all processes."""
        evaluation = self._validation(predictions, self.trainer.datamodule.val_dataset())  # type: ignore[attr-defined]
        self.validated = (predictions, evaluation)
        return evaluation.metrics

    def configure_optimizers(self) -> Any:
        """The optimizer, and a schedule that steps with each optimizer step."""
        optimizer = self._optimizer()
        if self.make_scheduler is None:
            return optimizer
        total = int(self.trainer.estimated_stepping_batches)  # also sets num_training_batches
        per_epoch = math.ceil(self.trainer.num_training_batches / self.trainer.accumulate_grad_batches)
        schedule = self.make_scheduler(optimizer, steps_per_epoch=per_epoch, total_steps=total)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def _optimizer(self) -> Optimizer:
        """The optimizer of all trained parameters, in one group for each block of the backbone with `layer_decay`."""
        if self.layer_decay == 1:
            return self.make_optimizer([parameter for parameter in self.parameters() if parameter.requires_grad])
        rate = self.make_optimizer([nn.Parameter(torch.zeros(1))]).param_groups[0]["lr"]
        return self.make_optimizer(parameter_groups(self, self.model.backbone, rate, self.layer_decay))
