"""Samplers: shards of a shuffle, resuming in the middle of an epoch, and fixed evaluation batches."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from distilpose.data.sampler import SeededShuffleSampler, ShardedBatchSampler, resume_position
from distilpose.errors import DistilPoseError


@pytest.mark.parametrize(
    ("persons", "world"), [(n, world) for n in (1, 7, 50, 64) for world in (1, 2, 3, 7, 8) if n >= world]
)
def test_batches_are_shared_whole(persons, world):
    shares = [list(ShardedBatchSampler(persons, 6, world, rank)) for rank in range(world)]
    assert sorted(index for share in shares for batch in share for index in batch) == list(range(persons))
    assert all(shares)
    one = list(ShardedBatchSampler(persons, 6))
    if len(one) >= world:  # each batch equals one of a single process
        assert sorted(batch for share in shares for batch in share) == one


@pytest.mark.parametrize("world", [1, 2, 3])
def test_a_resumed_epoch_has_only_the_remaining_persons(world):
    data = torch.utils.data.TensorDataset(torch.arange(23))
    for rank in range(world):
        full, resumed = (SeededShuffleSampler(data, world, rank, seed=3) for _ in range(2))
        resumed.resume(epoch=2, done=4)
        for epoch, done in ((2, 4), (3, 0), (2, 4)):
            full.set_epoch(epoch)
            resumed.set_epoch(epoch)
            assert list(resumed) == list(full)[done:]
            assert len(resumed) == len(full)  # Lightning derives the number of batches from it


def test_the_same_persons_make_up_a_step_for_any_number_of_processes():
    """Also if the number of persons is not divisible by the persons of a step."""
    data = torch.utils.data.TensorDataset(torch.arange(29))
    steps = []
    for world in (1, 2, 3, 6):
        size = 6 // world
        shares = [list(SeededShuffleSampler(data, world, rank, seed=1, step=size)) for rank in range(world)]
        assert {len(share) for share in shares} == {24 // world}
        steps.append(
            [sorted(view for share in shares for view in share[i : i + size]) for i in range(0, 24 // world, size)]
        )
    assert all(one == steps[0] for one in steps[1:])
    assert len({index for step in steps[0] for index, _ in step}) == 24


def test_fewer_persons_than_a_step_are_all_shown():
    data = torch.utils.data.TensorDataset(torch.arange(7))
    shares = [[index for index, _ in SeededShuffleSampler(data, 2, rank, seed=1, step=4)] for rank in range(2)]
    assert {len(share) for share in shares} == {4}
    assert {index for share in shares for index in share} == set(range(7))


def test_resuming_mid_epoch_needs_the_same_step():
    """Otherwise some persons would be used twice in the epoch, and others never."""
    trainer = SimpleNamespace(world_size=2, accumulate_grad_batches=1)
    state = {"epochs": 3, "batches": 4, "step": [8, 2, 1]}
    assert resume_position(state, trainer, 8) == (3, 4)
    with pytest.raises(DistilPoseError, match=r"epoch 3.* batch size 8, processes 2, .* batch size 4, proc"):
        resume_position(state, trainer, 4)
    with pytest.raises(DistilPoseError, match=r"processes 1, .*last\.ckpt"):
        resume_position(state, SimpleNamespace(world_size=1, accumulate_grad_batches=1), 8)
    assert resume_position({**state, "batches": 0}, trainer, 4) == (3, 0)  # allowed between two epochs
