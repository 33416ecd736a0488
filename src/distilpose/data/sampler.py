"""Samplers: a training order that depends on seed and epoch only, and fixed batches in evaluation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice
from math import prod
from typing import Any

import numpy as np
from torch.utils.data import Dataset, DistributedSampler, Sampler

from distilpose.errors import DistilPoseError


class SeededShuffleSampler(DistributedSampler):
    """This process's shard of a shuffle, with the seed of the augmented view beside each index.

    The views depend on `seed` and the epoch only: not on the number of workers or GPUs, and not on whether the run was
    interrupted. A run that resumes in the middle of an epoch sees exactly the rest of that epoch.

    Args:
        dataset: the persons.
        world: number of processes.
        rank: number of this process.
        seed: seed of the order and of the views.
        step: persons per optimizer step on one process. An epoch is a whole number of steps, and each step has the same
            persons for any number of processes. The remaining persons are not used in this epoch. If there are fewer
            persons than one step needs, the epoch shows each of them at least once, and some of them twice.
    """

    def __init__(self, dataset: Dataset[Any], world: int = 1, rank: int = 0, seed: int = 0, step: int = 1):
        super().__init__(dataset, world, rank, shuffle=True, seed=seed)
        steps = len(dataset) // (world * step)  # type: ignore[arg-type]
        if steps:
            self.num_samples, self.drop_last = steps * step, True
            self.total_size = self.num_samples * world
        self._resumed_epoch, self._done = 0, 0

    def resume(self, epoch: int, done: int) -> None:
        """Start in this epoch, after `done` persons of this process. Later epochs are complete."""
        self.set_epoch(epoch)
        self._resumed_epoch, self._done = epoch, done

    def __iter__(self) -> Iterator[tuple[int, int]]:
        """(index, seed) pairs, as `CocoKeypoints` takes them."""
        count = len(self.dataset)  # type: ignore[arg-type]
        seeds = np.random.default_rng((self.seed, self.epoch)).integers(2**31 - 1, size=count)
        rest = islice(super().__iter__(), self._done if self.epoch == self._resumed_epoch else 0, None)
        return ((index, int(seeds[index])) for index in rest)


class ShardedBatchSampler(Sampler[list[int]]):
    """This process's shard of the batches that a single process would evaluate: each person once.

    The last bits of a network's output depend on the batch that a crop is in. Equal batches therefore give metrics that
    are equal to the last bit for any number of processes. If there are fewer batches than processes, batches get smaller.

    Args:
        persons: number of persons, at least one per process.
        batch_size: persons in a batch; the last batch may have fewer.
        world: number of processes.
        rank: number of this process.
    """

    def __init__(self, persons: int, batch_size: int, world: int = 1, rank: int = 0):
        size = batch_size if -(-persons // batch_size) >= world else persons // world
        starts = range(0, persons, size)[rank::world]
        self.batches = [list(range(start, min(start + size, persons))) for start in starts]

    def __iter__(self) -> Iterator[list[int]]:
        """Lists of indices."""
        return iter(self.batches)

    def __len__(self) -> int:
        return len(self.batches)


def data_progress(trainer: Any, batch_size: int) -> dict[str, Any]:
    """Position of a training in its data, as a checkpoint keeps it.

    Args:
        trainer: Lightning's trainer.
        batch_size: persons per batch of one process.

    Returns:
        epochs: number of completed epochs.
        batches: batches of the current epoch that each process has seen; 0 between two epochs.
        step: batch size, number of processes, and batches accumulated for one optimizer step.
    """
    progress, batches = trainer.fit_loop.epoch_progress.current, trainer.fit_loop.epoch_loop.batch_progress
    # a checkpoint is written during validation when all batches are done, but before Lightning ends the epoch
    between_epochs = progress.processed == progress.started or batches.is_last_batch
    epochs = progress.started if batches.is_last_batch else progress.processed
    done = 0 if between_epochs else batches.current.processed
    return {"epochs": epochs, "batches": done, "step": _step(trainer, batch_size)}


def resume_position(state: Mapping[str, Any], trainer: Any, batch_size: int) -> tuple[int, int]:
    """Epoch and batch at which a training resumes from the state of `data_progress`.

    Raises:
        DistilPoseError: the checkpoint is from the middle of an epoch, and the persons of a step have changed in number, so
            that the rest of the epoch would be other persons.
    """
    epochs, batches = int(state["epochs"]), int(state.get("batches", 0))
    before, now = list(state.get("step", [])), _step(trainer, batch_size)
    if batches and before and before != now:
        steps, rest = divmod(batches, before[2])
        if prod(before) == prod(now) and not rest:  # each step has the same persons, in other parts
            return epochs, steps * now[2]
        names = ("batch size", "processes", "accumulated batches")
        old, new = (", ".join(f"{n} {value}" for n, value in zip(names, step, strict=True)) for step in (before, now))
        raise DistilPoseError(
            f"The checkpoint is from the middle of epoch {epochs}, which started with {old}, but this run has {new}: "
            "resume with the old values until the epoch ends, or from resume=…/checkpoints/last.ckpt."
        )
    return epochs, batches


def _step(trainer: Any, batch_size: int) -> list[int]:
    return [batch_size, trainer.world_size, trainer.accumulate_grad_batches]
