"""Learning-rate schedules that step once an optimiser step."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR


def warmup_multistep(
    optimizer: Optimizer,
    steps_per_epoch: int,
    total_steps: int,
    milestones: Sequence[float] = (200, 260),
    gamma: float = 0.1,
    warmup_steps: int = 500,
    warmup_factor: float = 0.001,
) -> LambdaLR:
    """The paper's schedule: linear warm-up from `warmup_factor` of the rate, then a drop by `gamma` at each milestone.

    Args:
        optimizer: whose rates are scaled.
        steps_per_epoch: optimiser steps in an epoch.
        total_steps: optimiser steps of the whole run (not used; all schedules are called alike).
        milestones: epochs, counted from 0, at whose start the rate drops.
        gamma: factor of each drop.
        warmup_steps: length of the warm-up.
        warmup_factor: share of the rate that the warm-up starts from.
    """
    drops = [round(epoch * steps_per_epoch) for epoch in milestones]

    def factor(step: int) -> float:
        return warmup(step, warmup_steps, warmup_factor) * gamma ** sum(step >= drop for drop in drops)

    return LambdaLR(optimizer, factor)


def warmup_cosine(
    optimizer: Optimizer,
    steps_per_epoch: int,
    total_steps: int,
    warmup_steps: int = 500,
    warmup_factor: float = 0.001,
    final_factor: float = 0.0,
) -> LambdaLR:
    """Linear warm-up, then half a cosine down to `final_factor` of the rate at the last step.

    Args:
        optimizer: whose rates are scaled.
        steps_per_epoch: optimiser steps in an epoch (not used; all schedules are called alike).
        total_steps: optimiser steps of the whole run.
        warmup_steps: length of the warm-up.
        warmup_factor: share of the rate that the warm-up starts from.
        final_factor: share of the rate at the end.
    """

    def factor(step: int) -> float:
        if step < warmup_steps:
            return warmup(step, warmup_steps, warmup_factor)
        progress = min(1.0, (step - warmup_steps) / max(1, total_steps - warmup_steps))
        return final_factor + (1 - final_factor) * 0.5 * (1 + math.cos(math.pi * progress))

    return LambdaLR(optimizer, factor)


def warmup(step: int, steps: int, start: float) -> float:
    """Share of the rate at `step` of a linear warm-up of `steps` steps that begins at `start`; 1 after it."""
    return 1.0 if step >= steps else 1 - (1 - step / steps) * (1 - start)
