"""Learning-rate schedules that step with each optimizer step."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated

from annotated_types import Ge, Le, Unit
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

Steps = Annotated[int, Ge(0), Unit("optimizer steps")]
Share = Annotated[float, Ge(0), Le(1)]


def warmup_multistep(
    optimizer: Optimizer,
    steps_per_epoch: int,
    total_steps: int,
    milestones: Sequence[Annotated[float, Ge(0)]] = (200, 260),
    gamma: Annotated[float, Ge(0)] = 0.1,
    warmup_steps: Steps = 500,
    warmup_factor: Share = 0.001,
) -> LambdaLR:
    """The paper's schedule: linear warm-up from `warmup_factor` of the rate, then a factor of `gamma` at each milestone.

    Args:
        optimizer: the optimizer whose rates are scaled.
        steps_per_epoch: optimizer steps of an epoch.
        total_steps: optimizer steps of the run (not used; all schedules have the same signature).
        milestones: epochs, counted from 0, at whose start the rate drops.
        gamma: factor of the rate at each milestone.
        warmup_steps: length of the warm-up.
        warmup_factor: share of the rate at the start of the warm-up.
    """
    drops = [round(epoch * steps_per_epoch) for epoch in milestones]

    def factor(step: int) -> float:
        return warmup(step, warmup_steps, warmup_factor) * gamma ** sum(step >= drop for drop in drops)

    return LambdaLR(optimizer, factor)


def warmup_cosine(
    optimizer: Optimizer,
    steps_per_epoch: int,
    total_steps: int,
    warmup_steps: Steps = 500,
    warmup_factor: Share = 0.001,
    final_factor: Share = 0.0,
) -> LambdaLR:
    """Linear warm-up, then half a cosine down to `final_factor` of the rate at the last step.

    Args:
        optimizer: the optimizer whose rates are scaled.
        steps_per_epoch: optimizer steps of an epoch (not used; all schedules have the same signature).
        total_steps: optimizer steps of the run.
        warmup_steps: length of the warm-up.
        warmup_factor: share of the rate at the start of the warm-up.
        final_factor: share of the rate at the end.
    """

    def factor(step: int) -> float:
        if step < warmup_steps:
            return warmup(step, warmup_steps, warmup_factor)
        progress = min(1.0, (step - warmup_steps) / max(1, total_steps - warmup_steps))
        return final_factor + (1 - final_factor) * 0.5 * (1 + math.cos(math.pi * progress))

    return LambdaLR(optimizer, factor)


def warmup(step: int, steps: int, start: float) -> float:
    """Share of the rate at `step` of a linear warm-up from `start` to 1 over `steps` steps; 1 after it."""
    return 1.0 if step >= steps else 1 - (1 - step / steps) * (1 - start)
