"""The check that stops a diverged training."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from distilpose.errors import DistilPoseError

if TYPE_CHECKING:
    from distilpose.modules.pose_module import PoseModule


def check_divergence(module: PoseModule) -> None:
    """Stop a training whose loss or weights are not finite, in all processes, before they are saved.

    The sums of the epoch's loss terms are checked too: they show a loss whose step mixed precision skipped. The check makes
    the CPU wait for the GPU, so it does not run after every batch.

    Raises:
        DistilPoseError: the training has diverged.
    """
    broken = [value.isfinite().logical_not().any() for value in (*module.epoch_sums.values(), *module.parameters())]
    broken += [buffer.isnan().any() for buffer in module.buffers() if buffer.is_floating_point()]
    trainer = module.trainer
    if trainer.strategy.reduce_boolean_decision(bool(torch.stack(broken).any()), all=False):
        step, interval = trainer.global_step, trainer.log_every_n_steps  # type: ignore[attr-defined]
        raise DistilPoseError(
            f"The training diverged: loss or weights are not finite in epoch {module.current_epoch}, at step {step} or at "
            f"most {interval} before. Lower optimizer.lr or lengthen scheduler.warmup_steps; earlier checkpoints are kept."
        )
