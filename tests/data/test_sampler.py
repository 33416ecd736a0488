"""Who sees which person: shares of one order, the rest of an epoch, and evaluation batches in the same company."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from distilpose.data.sampler import SeededShuffleSampler, ShardedBatchSampler, taken_up
from distilpose.errors import DistilPoseError


@pytest.mark.parametrize(
    ("persons", "world"), [(n, world) for n in (1, 7, 50, 64) for world in (1, 2, 3, 7, 8) if n >= world]
)
def test_batches_are_shared_whole(persons, world):
    shares = [list(ShardedBatchSampler(persons, 6, world, rank)) for rank in range(world)]
    assert sorted(index for share in shares for batch in share for index in batch) == list(range(persons))
    assert all(shares)
    one = list(ShardedBatchSampler(persons, 6))
    if len(one) >= world:  # each batch is one that a single process would have made
        assert sorted(batch for share in shares for batch in share) == one


@pytest.mark.parametrize("world", [1, 2, 3])
def test_an_epoch_taken_up_is_the_rest_of_it(world):
    data = torch.utils.data.TensorDataset(torch.arange(23))
    for rank in range(world):
        whole, again = (SeededShuffleSampler(data, world, rank, seed=3) for _ in range(2))
        again.take_up(epoch=2, shown=4)
        for epoch, shown in ((2, 4), (3, 0), (2, 4)):
            whole.set_epoch(epoch)
            again.set_epoch(epoch)
            assert list(again) == list(whole)[shown:]
            assert len(again) == len(whole)  # Lightning counts an epoch's batches by it


def test_the_same_persons_make_up_a_step_for_any_number_of_processes():
    """Also where their number divides by none: an epoch is whole steps."""
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


def test_an_epoch_that_others_began_is_not_ended_differently():
    """Its persons would be shared out differently: some shown twice, some never."""
    trainer = SimpleNamespace(world_size=2, accumulate_grad_batches=1)
    state = {"epochs": 3, "batches": 4, "step": [8, 2, 1]}
    assert taken_up(state, trainer, 8) == (3, 4)
    with pytest.raises(
        DistilPoseError, match=r"middle of epoch 3, which batch size 8, processes 2, .* batch size 4, proc"
    ):
        taken_up(state, trainer, 4)
    with pytest.raises(DistilPoseError, match=r"processes 1, .*last\.ckpt"):
        taken_up(state, SimpleNamespace(world_size=1, accumulate_grad_batches=1), 8)
    assert taken_up({**state, "batches": 0}, trainer, 4) == (3, 0)  # between two epochs anything goes
