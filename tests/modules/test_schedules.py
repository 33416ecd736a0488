from __future__ import annotations

import itertools

import pytest
import torch

from distilpose.modules.schedules import warmup_cosine, warmup_multistep


def rates(make, steps, **options):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = make(optimizer, **options)
    values = []
    for _ in range(steps):
        values.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return values


def test_the_papers_schedule():
    """Warm-up from a thousandth over 500 steps, a tenth from epoch 200 and a hundredth from 260."""
    rate_at = rates(warmup_multistep, 3000, steps_per_epoch=10, total_steps=3000)
    assert rate_at[0] == pytest.approx(0.001)
    assert rate_at[250] == pytest.approx(0.5005)
    assert rate_at[499] == pytest.approx(1 - (1 - 499 / 500) * 0.999)
    assert rate_at[500] == rate_at[1999] == 1.0
    assert rate_at[2000] == rate_at[2599] == pytest.approx(0.1)
    assert rate_at[2600] == rate_at[2999] == pytest.approx(0.01)


def test_cosine_ends_at_final_factor():
    rate_at = rates(warmup_cosine, 101, steps_per_epoch=10, total_steps=100, warmup_steps=20, final_factor=0.1)
    assert rate_at[0] == pytest.approx(0.001)
    assert rate_at[20] == pytest.approx(1.0)
    assert rate_at[60] == pytest.approx(0.55)
    assert rate_at[100] == pytest.approx(0.1)
    assert all(a >= b for a, b in itertools.pairwise(rate_at[20:]))


@pytest.mark.parametrize("make", [warmup_multistep, warmup_cosine])
def test_no_warmup(make):
    assert rates(make, 1, steps_per_epoch=1, total_steps=10, warmup_steps=0) == [1.0]
