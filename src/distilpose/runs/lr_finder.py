"""Which learning rate to try first: `python -m distilpose.train lr_find=true …`."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from lightning import Callback, LightningModule, Trainer
from matplotlib import pyplot as plt
from omegaconf import DictConfig
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from distilpose.data import CocoDataModule
from distilpose.errors import DistilPoseError, check_number
from distilpose.modules.base import PoseModule
from distilpose.runs.validation import count_processes, effective_batch
from distilpose.visualization.samples import figure_to_picture, write_picture

LOWEST, HIGHEST, STEPS = 1e-6, 1.0, 100
# of the running mean of the loss that stays at each step
SMOOTHING = 0.9
# of the steps, whose running mean is of too few losses to be judged
FIRST = 10
PICTURE = "learning_rate.png"


class Curve(Callback):
    """The smoothed loss at each rate, until it leaves the range it began in.

    Attributes:
        rates: of each optimiser step.
        losses: the running mean of the loss up to that step.
        diverged: whether the loss is no number any more, or much above where it began.
    """

    def __init__(self) -> None:
        self.rates: list[float] = []
        self.losses: list[float] = []
        self.diverged = False
        self._batches: list[float] = []
        self._mean = 0.0

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Note the rate of the step that this batch is of."""
        self._rate = trainer.optimizers[0].param_groups[-1]["lr"]

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Add the step's loss, and end where there is no more to see."""
        self._batches.append(float(trainer.callback_metrics["train/total_step"]))
        if trainer.global_step == len(self.rates):  # more batches are accumulated
            return
        loss = sum(self._batches) / len(self._batches)
        self._batches.clear()
        self._mean = SMOOTHING * self._mean + (1 - SMOOTHING) * loss
        self.rates.append(self._rate)
        self.losses.append(self._mean / (1 - SMOOTHING ** len(self.rates)))
        began, best, now = self.losses[0], np.min(self.losses), self.losses[-1]
        above = len(self.rates) > FIRST and now > began + max(began - best, abs(began))
        self.diverged = not math.isfinite(now) or bool(above)
        trainer.should_stop = self.diverged

    def suggestion(self) -> float | None:
        """A tenth of the rate with the lowest loss; None where the loss falls at none.

        Where it falls most steeply would be another rule, and on batches of other persons in each step finds noise.
        """
        if not np.isfinite(self.losses).any():
            return None
        lowest = int(np.nanargmin(self.losses))
        return self.rates[lowest] / 10 if lowest > FIRST else None


def rising(optimizer: Optimizer, steps_per_epoch: int, total_steps: int, steps: int) -> LambdaLR:
    """A schedule, called as all are, from the lowest rate to the highest; blocks keep their share of it."""
    full = optimizer.param_groups[-1]["lr"]
    return LambdaLR(optimizer, lambda step: LOWEST * (HIGHEST / LOWEST) ** (step / (steps - 1)) / full)


def find_rate(cfg: DictConfig, module: PoseModule, datamodule: CocoDataModule) -> float | None:
    """Raise the rate from step to step, draw what the loss does into the run's folder, and say which rate to try.

    It takes the run's effective batch, on one device, its optimiser and precision. Lightning's own finder would give all
    blocks of the backbone one rate, and looks for the steepest fall, which from batch to batch is noise.

    Args:
        cfg: the run's configuration; its schedule is left out.
        module: trained on, and of no further use.
        datamodule: as the run would read it.

    Returns:
        The rate for `optimizer.lr`; None where the loss falls nowhere.
    """
    check_number("optimizer.lr", cfg.optimizer.lr, above=0)  # the blocks' rates are shares of it
    picture = Path(cfg.folder) / PICTURE
    if picture.exists():
        raise DistilPoseError(f"'{picture}' exists and is not overwritten: remove it, or choose another hydra.run.dir.")
    module.make_scheduler = partial(rising, steps=STEPS)
    curve = Curve()
    batches = cfg.trainer.accumulate_grad_batches * count_processes(cfg.trainer)
    names = ("accelerator", "precision", "gradient_clip_val", "gradient_clip_algorithm")
    kept = {name: cfg.trainer[name] for name in names if name in cfg.trainer}
    trainer = Trainer(
        **kept, devices=1, accumulate_grad_batches=batches, max_epochs=STEPS, max_steps=STEPS, limit_val_batches=0,
        num_sanity_val_steps=0, callbacks=[curve], logger=False, enable_checkpointing=False,
        enable_model_summary=False, use_distributed_sampler=False, default_root_dir=cfg.folder,
    )  # fmt: skip
    try:
        trainer.fit(module, datamodule)
    except DistilPoseError:
        if not curve.diverged:  # which the module tells too, where it comes with an epoch's end
            raise
    rate = curve.suggestion()
    write_picture(picture, draw(curve, rate))
    scale = effective_batch(cfg) / cfg.reference_batch if cfg.scale_lr else 1.0
    if rate is None:
        print(f"The loss falls at no rate from {LOWEST:g} to {curve.rates[-1]:.2g}: see {picture}.")
        return None
    print(f"The loss is lowest at {10 * rate:.2g}: try a tenth, optimizer.lr={rate / scale:.2g}. Its curve: {picture}")
    return rate / scale


def draw(curve: Curve, rate: float | None) -> np.ndarray:
    """The curve as an (H, W, 3) uint8 RGB picture, the rate to try marked."""
    figure, axes = plt.subplots(figsize=(7, 4), dpi=100, layout="constrained")
    axes.plot(curve.rates, curve.losses)
    if rate is not None:
        axes.axvline(rate, color="0.6", linestyle="--")
        axes.plot(10 * rate, np.nanmin(curve.losses), "o", label=f"lowest; the line is at a tenth of it, {rate:.2g}")
        axes.legend()
    axes.set(xscale="log", xlabel="learning rate", ylabel="loss, running mean", title="the loss while the rate rises")
    return figure_to_picture(figure)
