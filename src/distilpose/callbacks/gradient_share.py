"""Which term of a student's loss has how much of a say, over training."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning import Callback, LightningModule, Trainer
from matplotlib import pyplot as plt
from matplotlib.ticker import MaxNLocator
from torch import Tensor, nn

from distilpose.errors import check_number
from distilpose.modules import DistillationModule
from distilpose.outputs import PoseBatch
from distilpose.visualization.samples import figure_to_picture, log_picture

LOGGED = "train/share_"


class GradientShare(Callback):
    """Logs and draws `train/share_<term>`: the length of each weighted term's gradient as a share of the sum of all lengths.

    The gradient is that with respect to the student's tokens, keypoint and visual together: what its last layer hands
    on, where all terms still meet. Lengths are added whatever their directions, so terms that pull against each other
    have their full share. A measured batch is seen once more, in eval mode, so that neither batch statistics nor random
    numbers change: the training is the same with and without this.

    Args:
        folder: where shares.png is written.
        every: batches from one measurement to the next, counted from the first of each epoch.
    """

    def __init__(self, folder: str | Path, every: int = 100):
        check_number("callbacks.gradient_share.every", every, least=1, whole=True)
        self.picture = Path(folder) / "shares.png"
        self.every = every
        self.epochs: list[dict[str, float]] = []

    def state_dict(self) -> dict[str, Any]:
        """The shares so far, so that a resumed run draws the whole of them."""
        return {"epochs": self.epochs}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up the shares of the run that is resumed."""
        self.epochs = list(state_dict["epochs"])

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Say so where there is nothing to measure."""
        if trainer.is_global_zero and not isinstance(pl_module, DistillationModule):
            print("callbacks.gradient_share measures the terms of a student's loss: of a teacher it draws nothing.")

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: PoseBatch, batch_idx: int
    ) -> None:
        """Measure what the step to come is made of, if it is the batch's turn."""
        if batch_idx % self.every or not isinstance(pl_module, DistillationModule):
            return
        shares = gradient_shares(pl_module, batch, pl_module.progress())
        logged = {f"{LOGGED}{name}": share for name, share in shares.items()}
        pl_module.log_dict(logged, on_step=False, on_epoch=True, batch_size=len(batch.image), sync_dist=True)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw the shares, one over the other."""
        logged = {name: float(value) for name, value in trainer.callback_metrics.items() if name.startswith(LOGGED)}
        shares = {name.removeprefix(LOGGED): value for name, value in logged.items()}
        if not shares:
            return
        self.epochs.append({"epoch": trainer.current_epoch + 1, **shares})
        if trainer.is_global_zero:
            log_picture(trainer, self.picture, draw_shares(self.epochs))


def draw_shares(epochs: list[dict[str, float]]) -> np.ndarray:
    """The shares of all terms over the epochs, one over the other; terms without any are left out.

    Args:
        epochs: by term its share in [0, 1], and the epoch's number from 1 as "epoch".

    Returns:
        (H, W, 3) uint8 RGB.
    """
    names = [name for name in epochs[-1] if name != "epoch" and any(epoch.get(name, 0.0) for epoch in epochs)]
    figure, axes = plt.subplots(figsize=(7, 4), dpi=100, layout="constrained")
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
    """Share of each term in the lengths of all terms' gradients at the student's tokens.

    Args:
        module: a student in training; left as it is, its gradients too.
        batch: N persons on its device.
        progress: share of the training that is over, for terms whose weight rises.

    Returns:
        By term in [0, 1], summing to 1, or all 0 where nothing has a gradient; a term without one has 0.
    """
    with _in_eval_mode(module), torch.enable_grad():
        student, terms = module.terms(batch, progress)
        tokens = [student.keypoint_tokens, student.visual_tokens]
        lengths = {name: _length(value, tokens) for name, value in terms.items() if name != "total"}
    total = sum(lengths.values())
    return {name: length / total if total else 0.0 for name, length in lengths.items()}


def _length(term: Tensor, tokens: list[Tensor]) -> float:
    """Length of the gradient of a term with respect to all tokens taken together."""
    if not term.requires_grad:
        return 0.0
    gradients = torch.autograd.grad(term, tokens, retain_graph=True, allow_unused=True)
    return sum(float(part.double().square().sum()) for part in gradients if part is not None) ** 0.5


@contextmanager
def _in_eval_mode(module: nn.Module) -> Iterator[None]:
    """Everything in eval mode inside the block, and each part as it was after it."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training
