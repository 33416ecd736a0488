"""Resuming an epoch with the same effective batch in other parts."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint

from distilpose.data.sampler import SeededShuffleSampler, resume_position
from distilpose.errors import DistilPoseError
from distilpose.modules.resumed_epoch import keep_own_patience, own_share, rescale_progress


def loaded(before, done, total=None):
    counts = {"ready": done, "started": done, "processed": done, "completed": done - 1}
    return {
        "loops": {
            "fit_loop": {
                "epoch_loop.batch_progress": {
                    "current": dict(counts),
                    "total": {k: v + (total or 0) for k, v in counts.items()},
                    "is_last_batch": False,
                }
            }
        },
        "CocoDataModule": {"epochs": 1, "batches": done, "step": before},
    }


def test_batches_are_counted_in_those_of_this_start():
    checkpoint = loaded([4, 8, 1], 3, total=10)
    rescale_progress(checkpoint, 2)
    progress = checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]
    assert progress["current"] == {"ready": 6, "started": 6, "processed": 6, "completed": 5}
    assert progress["total"] == {"ready": 16, "started": 16, "processed": 16, "completed": 15}
    same = loaded([4, 8, 2], 4)
    rescale_progress(same, 2)
    assert same == loaded([4, 8, 2], 4)
    rescale_progress({}, 2)  # a checkpoint without loops


parts = st.sampled_from(
    [(world, size, accumulated) for world in (1, 2, 4) for size in (1, 2, 4) for accumulated in (1, 2, 4)]
)


@given(parts, parts, st.integers(16, 70), st.integers(0, 3))
def test_the_rest_of_an_epoch_has_the_persons_not_seen_yet(before, now, persons, steps):
    """The persons of all processes before and after the change are those of the whole epoch, each once."""
    data = torch.utils.data.TensorDataset(torch.arange(persons))

    def shares(part):
        world, size, accumulated = part
        return [SeededShuffleSampler(data, world, rank, seed=3, step=size * accumulated) for rank in range(world)]

    world, size, accumulated = before
    effective = world * size * accumulated
    state = {"epochs": 0, "batches": steps * accumulated, "step": [size, world, accumulated]}
    trainer = SimpleNamespace(world_size=now[0], accumulate_grad_batches=now[2])
    if steps and effective != now[0] * now[1] * now[2]:
        with pytest.raises(DistilPoseError, match="middle of epoch 0"):
            resume_position(state, trainer, now[1])
        return
    if steps * effective > persons or persons < effective or not steps:
        return
    epoch, batches = resume_position(state, trainer, now[1])
    seen = [index for share in shares(before) for index, _ in list(share)[: steps * accumulated * size]]
    rest = []
    for share in shares(now):
        share.resume(epoch, batches * now[1])
        rest += [index for index, _ in share]
    whole = [index for share in shares(before) for index, _ in share]
    assert sorted([*seen, *rest]) == sorted(whole)
    assert len(set(whole)) == len(whole)


@pytest.mark.parametrize(("saved", "world"), [(8, 4), (4, 8), (2, 1), (1, 2), (3, 3)])
def test_the_mean_of_an_epoch_weighs_every_person_once(saved, world):
    """Sums of 12 persons in each of `saved` processes, then 4 persons more a step in all: the mean over all persons."""
    torch.manual_seed(0)
    before = torch.rand(saved, 12)
    later = torch.rand(world, 24 // world)
    shares = [own_share({"total": before.sum(1)}, 12, world, rank) for rank in range(world)]
    means = [
        (sums["total"] + later[rank].sum()) / (persons + later.shape[1]) for rank, (sums, persons) in enumerate(shares)
    ]
    expected = torch.cat([before.flatten(), later.flatten()]).mean()
    torch.testing.assert_close(torch.stack(means).mean(), expected)
    assert own_share({}, 0, world, 0) == ({}, 0)


def test_the_patience_of_a_resumed_run_is_the_one_that_it_is_given(caplog):
    old, new = EarlyStopping("val/PCK", patience=5, mode="max"), EarlyStopping("val/PCK", patience=9, mode="max")
    old.wait_count = 3
    checkpoint = {"callbacks": {old.state_key: old.state_dict(), "Speed": {}}}
    with caplog.at_level("INFO", "distilpose"):
        keep_own_patience(checkpoint, [new, ModelCheckpoint()])
    new.load_state_dict(checkpoint["callbacks"][new.state_key])
    assert (new.patience, new.wait_count) == (9, 3)
    assert "was 5, and is 9" in caplog.text
    keep_own_patience({}, [new])
