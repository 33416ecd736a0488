"""Suggests a learning rate: `python -m distilpose.train lr_find=true …`.

Lightning's Tuner is not used because it sets one rate for all blocks, its suggestion is mostly noise, and it stops as soon
as a loss (a log-likelihood) is negative. Measured on experiment=demo_student: with loss=regression the loss is lowest at
0.3; this module suggests 0.03 and the Tuner, which looks for the steepest fall, 8e-6. With loss=rle the Tuner suggests
0.9, at which the loss diverges.
"""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import numpy as np
from lightning import Callback, LightningModule, Trainer
from matplotlib.figure import Figure
from omegaconf import DictConfig, OmegaConf
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from distilpose.data import CocoDataModule
from distilpose.errors import DistilPoseError
from distilpose.modules.pose_module import PoseModule
from distilpose.runs.preflight import count_processes, effective_batch, translate_lightning_errors
from distilpose.visualization.drawing import write_picture
from distilpose.visualization.samples import figure_to_picture

LOWEST, HIGHEST, STEPS = 1e-6, 1.0, 100
# weight of the previous running mean of the loss at each step
SMOOTHING = 0.9
# steps at the start that are ignored because their running mean has too few losses
FIRST = 10
PICTURE = "learning_rate.png"


class Curve(Callback):
    """Records the smoothed loss at each rate, and stops the training when the loss diverges.

    Attributes:
        rates: learning rate of each optimizer step.
        losses: running mean of the loss up to that step.
        diverged: whether the loss is no longer finite, or far above its first value.
    """

    def __init__(self) -> None:
        self.rates: list[float] = []
        self.losses: list[float] = []
        self.diverged = False
        self._batches: list[float] = []
        self._mean = 0.0

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Record the learning rate of this step."""
        self._rate = trainer.optimizers[0].param_groups[-1]["lr"]

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Record the loss of the step, and stop when it diverges."""
        self._batches.append(float(trainer.callback_metrics["train/total_step"]))
        if trainer.global_step == len(self.rates):  # more batches are accumulated before the step
            return
        loss = sum(self._batches) / len(self._batches)
        self._batches.clear()
        self._mean = SMOOTHING * self._mean + (1 - SMOOTHING) * loss
        self.rates.append(self._rate)
        self.losses.append(self._mean / (1 - SMOOTHING ** len(self.rates)))
        first, best, last = self.losses[0], np.min(self.losses), self.losses[-1]
        above = len(self.rates) > FIRST and last > first + max(first - best, abs(first))
        self.diverged = not math.isfinite(last) or bool(above)
        trainer.should_stop = self.diverged

    def suggestion(self) -> float | None:
        """A tenth of the rate with the lowest loss; None if no rate lowers the loss."""
        if not np.isfinite(self.losses).any():
            return None
        lowest = int(np.nanargmin(self.losses))
        return self.rates[lowest] / 10 if lowest > FIRST else None


def rising(optimizer: Optimizer, steps_per_epoch: int, total_steps: int, steps: int) -> LambdaLR:
    """A schedule that rises from the lowest to the highest rate over `steps`; each block keeps its share of the rate."""
    full = optimizer.param_groups[-1]["lr"]
    return LambdaLR(optimizer, lambda step: LOWEST * (HIGHEST / LOWEST) ** (step / (steps - 1)) / full)


def with_rising_rate(cfg: DictConfig) -> DictConfig:
    """The run's configuration with a schedule that tries all rates.

    Raises:
        DistilPoseError: the learning rate is 0, so that blocks have no shares of it.
    """
    if not cfg.optimizer.lr:
        raise DistilPoseError("optimizer.lr=0 must be above 0 for lr_find=true: give any rate.")
    schedule = {"_target_": f"{__name__}.rising", "_partial_": True, "steps": STEPS}
    changed = copy.copy(cfg)
    changed.scheduler = OmegaConf.create(schedule)
    return changed


def find_rate(cfg: DictConfig, module: PoseModule, datamodule: CocoDataModule) -> float | None:
    """Raise the learning rate from step to step, draw the loss into the run's folder, and print a suggestion.

    The search uses the run's effective batch, optimizer and precision, on one device.

    Args:
        cfg: the run's configuration, with the schedule of `with_rising_rate`.
        module: is trained here and must not be used afterwards.
        datamodule: the run's data.

    Returns:
        The rate for `optimizer.lr`; None if no rate lowers the loss.
    """
    picture = Path(cfg.folder) / PICTURE
    if picture.exists():
        raise DistilPoseError(f"'{picture}' exists and is not overwritten: remove it, or choose another hydra.run.dir.")
    curve = Curve()
    batches = cfg.trainer.accumulate_grad_batches * count_processes(cfg.trainer)
    names = ("accelerator", "precision", "gradient_clip_val", "gradient_clip_algorithm")
    settings = {name: cfg.trainer[name] for name in names if name in cfg.trainer}
    try:
        with translate_lightning_errors():
            Trainer(
                **settings, devices=1, accumulate_grad_batches=batches, max_epochs=STEPS, max_steps=STEPS,
                limit_val_batches=0, num_sanity_val_steps=0, callbacks=[curve], logger=False, enable_checkpointing=False,
                enable_model_summary=False, use_distributed_sampler=False, default_root_dir=cfg.folder,
            ).fit(module, datamodule)  # fmt: skip
    except DistilPoseError:
        if not curve.diverged:  # the module raises an error at the end of an epoch that has diverged
            raise
    rate = curve.suggestion()
    write_picture(picture, draw(curve, rate))
    scale = effective_batch(cfg) / cfg.reference_batch if cfg.scale_lr else 1.0
    if rate is None:
        print(f"No learning rate from {LOWEST:g} to {curve.rates[-1]:.2g} lowers the loss: see {picture}.")
        return None
    print(f"The loss is lowest at {10 * rate:.2g}: try a tenth, optimizer.lr={rate / scale:.2g}. Curve: {picture}")
    return rate / scale


def draw(curve: Curve, rate: float | None) -> np.ndarray:
    """Draw the curve as an (H, W, 3) uint8 RGB picture, with a line at the suggested rate."""
    figure = Figure(figsize=(7, 4), dpi=100, layout="constrained")
    axes = figure.subplots()
    axes.plot(curve.rates, curve.losses)
    if rate is not None:
        axes.axvline(rate, color="0.6", linestyle="--")
        axes.plot(10 * rate, np.nanmin(curve.losses), "o", label=f"lowest; the line is at a tenth of it, {rate:.2g}")
        axes.legend()
    axes.set(xscale="log", xlabel="learning rate", ylabel="loss, running mean", title="the loss while the rate rises")
    return figure_to_picture(figure)
