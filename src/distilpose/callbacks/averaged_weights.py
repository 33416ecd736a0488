"""An exponential moving average of the weights, on the device that trains."""

from __future__ import annotations

from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import EMAWeightAveraging

from distilpose.errors import check_number


class AveragedWeights(EMAWeightAveraging):
    """Lightning's average, kept on the device that trains.

    Lightning makes its copy before the model is moved there, so that on a GPU each step would bring all weights to the CPU.
    Validations see the average; a checkpoint's `state_dict` is the average, and its `current_model_state` the raw weights,
    which the training goes on with.

    Args:
        decay: share of the average that stays at each step, in (0, 1).
        **options: of Lightning's EMAWeightAveraging; `device` keeps the average elsewhere.
    """

    def __init__(self, decay: float = 0.999, **options: Any):
        check_number("callbacks.ema.decay", decay, above=0, below=1)
        super().__init__(decay=decay, **options)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Make the copy where the model is going to be."""
        if self._device is None:
            self._device = trainer.strategy.root_device
        super().setup(trainer, pl_module, stage)
