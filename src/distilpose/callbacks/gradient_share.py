"""Share of each term of a student's loss in its gradient, over training."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from annotated_types import Ge, Unit
from lightning import Callback, LightningModule, Trainer
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor, nn

from distilpose.modules import DistillationModule
from distilpose.outputs import PoseBatch
from distilpose.visualization.samples import figure_to_picture, log_picture

log = logging.getLogger(__name__)

LOGGED = "train/share_"


class GradientShare(Callback):
    """Log and draw `train/share_<term>`: the norm of each weighted term's gradient as a share of the sum of all norms.

    The gradient is taken with respect to the student's keypoint and visual tokens together: the output of its last layer,
    on which all terms depend. Norms are added regardless of direction, so terms that oppose each other keep their full
    share. A measured batch passes through the model once more, in eval mode, so that neither batch statistics nor random
    numbers change: the training is the same with and without this callback.

    Args:
        folder: folder of shares.png.
        every: batches from one measurement to the next, counted from the first of each epoch.
    """

    def __init__(self, folder: str | Path, every: Annotated[int, Ge(1), Unit("batches")] = 100):
        self.picture = Path(folder) / "shares.png"
        self.every = every
        self.epochs: list[dict[str, float]] = []

    def state_dict(self) -> dict[str, Any]:
        """The shares so far, so that a resumed run draws all of them."""
        return {"epochs": self.epochs}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the shares of the resumed run."""
        self.epochs = list(state_dict["epochs"])

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Warn if there is nothing to measure."""
        if trainer.is_global_zero and not isinstance(pl_module, DistillationModule):
            log.warning(
                "callbacks.gradient_share measures the terms of a student's loss, and does nothing for a teacher."
            )

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: PoseBatch, batch_idx: int
    ) -> None:
        """Measure every `every` batches."""
        if batch_idx % self.every or not isinstance(pl_module, DistillationModule):
            return
        shares = gradient_shares(pl_module, batch, pl_module.progress())
        logged = {f"{LOGGED}{name}": share for name, share in shares.items()}
        pl_module.log_dict(logged, on_step=False, on_epoch=True, batch_size=len(batch.image), sync_dist=True)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw the shares as stacked areas."""
        logged = {name: float(value) for name, value in trainer.callback_metrics.items() if name.startswith(LOGGED)}
        shares = {name.removeprefix(LOGGED): value for name, value in logged.items()}
        if not shares:
            return
        self.epochs.append({"epoch": trainer.current_epoch + 1, **shares})
        if trainer.is_global_zero:
            log_picture(trainer, self.picture, draw_shares(self.epochs))


def draw_shares(epochs: list[dict[str, float]]) -> np.ndarray:
    """Draw the shares of all terms over the epochs as stacked areas; terms that are always 0 are left out.

    Args:
        epochs: share of each term in [0, 1] by name, and the epoch's number from 1 as "epoch".

    Returns:
        (H, W, 3) uint8 RGB.
    """
    names = [name for name in epochs[-1] if name != "epoch" and any(epoch.get(name, 0.0) for epoch in epochs)]
    figure = Figure(figsize=(7, 4), dpi=100, layout="constrained")
    axes = figure.subplots()
    heights = [[100 * epoch.get(name, 0.0) for epoch in epochs] for name in names]
    x = [epoch["epoch"] for epoch in epochs]
    if len(x) == 1:  # an area needs two edges
        x, heights = [x[0] - 0.5, x[0] + 0.5], [[height[0]] * 2 for height in heights]
    axes.stackplot(x, heights, labels=[name.replace("_", " ") for name in names], alpha=0.8)
    axes.set(xlabel="epoch", ylabel="share of the gradient at the tokens, per cent", ylim=(0, 100), xlim=(x[0], x[-1]))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), reverse=True)
    return figure_to_picture(figure)


def gradient_shares(module: DistillationModule, batch: PoseBatch, progress: float = 1.0) -> dict[str, float]:
    """Share of each term in the sum of the norms of all terms' gradients at the student's tokens.

    Args:
        module: a student in training; neither it nor its gradients change.
        batch: N persons on its device.
        progress: finished share of the training in [0, 1], for terms whose weight rises.

    Returns:
        Share of each term in [0, 1] by name, with sum 1, or all 0 if no term has a gradient.
    """
    with _in_eval_mode(module), torch.enable_grad():
        student, terms = module.terms(batch, progress)
        tokens = [student.keypoint_tokens, student.visual_tokens]
        norms = {name: _gradient_norm(value, tokens) for name, value in terms.items() if name != "total"}
    total = sum(norms.values())
    return {name: norm / total if total else 0.0 for name, norm in norms.items()}


def _gradient_norm(term: Tensor, tokens: list[Tensor]) -> float:
    """Norm of the gradient of a term with respect to all tokens together."""
    if not term.requires_grad:
        return 0.0
    gradients = torch.autograd.grad(term, tokens, retain_graph=True, allow_unused=True)
    return sum(float(part.double().square().sum()) for part in gradients if part is not None) ** 0.5


@contextmanager
def _in_eval_mode(module: nn.Module) -> Iterator[None]:
    """Set eval mode inside the block, and restore the mode of each part after it."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training
