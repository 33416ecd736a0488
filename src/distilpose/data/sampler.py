"""Which person is shown when: in training decided by the seed and the epoch alone, in evaluation once and in fixed batches."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

import numpy as np
from torch.utils.data import Dataset, DistributedSampler, Sampler

from distilpose.errors import DistilPoseError


class SeededShuffleSampler(DistributedSampler):
    """This process's share of a shuffle, each index with the seed of the view it is to be shown in.

    The views depend neither on the loading processes nor on how many of them or of GPUs there are, nor on whether the run
    was interrupted: a resumed epoch is the one that would have been, and one resumed in its middle is the rest of it.

    Args:
        dataset: the persons.
        world: number of processes.
        rank: of this process.
        seed: of order and views.
        step: persons of an optimiser step on one process. An epoch is whole steps, the same ones however a step's persons
            are shared out; what is left over waits for the next epoch's shuffle. Where there are fewer persons than that,
            each is in the order, some twice where their number does not divide.
    """

    def __init__(self, dataset: Dataset[Any], world: int = 1, rank: int = 0, seed: int = 0, step: int = 1):
        super().__init__(dataset, world, rank, shuffle=True, seed=seed)
        steps = len(dataset) // (world * step)  # type: ignore[arg-type]
        if steps:
            self.num_samples, self.drop_last = steps * step, True
            self.total_size = self.num_samples * world
        self._resumed, self._shown = 0, 0

    def take_up(self, epoch: int, shown: int) -> None:
        """Go on in an epoch after so many of this process's persons; later epochs are whole."""
        self.set_epoch(epoch)
        self._resumed, self._shown = epoch, shown

    def __iter__(self) -> Iterator[tuple[int, int]]:
        """(index, seed) pairs, to ask a `CocoKeypoints` for."""
        count = len(self.dataset)  # type: ignore[arg-type]
        seeds = np.random.default_rng((self.seed, self.epoch)).integers(2**31 - 1, size=count)
        left = islice(super().__iter__(), self._shown if self.epoch == self._resumed else 0, None)
        return ((index, int(seeds[index])) for index in left)


class ShardedBatchSampler(Sampler[list[int]]):
    """This process's share of the batches one process would evaluate: each person once, and in the same company.

    A network's last bits depend on the batch a crop is in, so that figures are equal to the last bit for any number of
    processes only if batches are. Where there are fewer batches than processes, batches are smaller.

    Args:
        persons: how many there are; at least one a process.
        batch_size: persons in a batch; the last may have fewer.
        world: number of processes.
        rank: of this process.
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


def progress_of(trainer: Any, batch_size: int) -> dict[str, Any]:
    """Where in its data a training stands.

    Args:
        trainer: Lightning's.
        batch_size: persons in a batch of a process.

    Returns:
        epochs: shown whole. batches: shown by each process of the epoch it stands in, 0 between two. step: what makes up an
        optimiser step: batch size, processes, accumulated batches.
    """
    progress, batches = trainer.fit_loop.epoch_progress.current, trainer.fit_loop.epoch_loop.batch_progress
    # one written by a validation stands before the end of an epoch whose batches have all been shown
    whole = progress.processed == progress.started or batches.is_last_batch
    epochs = progress.started if batches.is_last_batch else progress.processed
    shown = 0 if whole else batches.current.processed
    return {"epochs": epochs, "batches": shown, "step": _step(trainer, batch_size)}


def taken_up(state: Mapping[str, Any], trainer: Any, batch_size: int) -> tuple[int, int]:
    """The epochs and batches of `progress_of`, for a training that goes on.

    Raises:
        DistilPoseError: it stands in the middle of an epoch that other batches or processes would share out differently.
    """
    epochs, batches = int(state["epochs"]), int(state.get("batches", 0))
    was, step = list(state.get("step", [])), _step(trainer, batch_size)
    if batches and was and was != step:
        names = ("batch size", "processes", "accumulated batches")
        then, now = (", ".join(f"{n} {value}" for n, value in zip(names, one, strict=True)) for one in (was, step))
        raise DistilPoseError(
            f"The checkpoint stands in the middle of epoch {epochs}, which {then} began and {now} cannot end: go on as it "
            "began until the epoch's end, or from resume=…/checkpoints/last.ckpt."
        )
    return epochs, batches


def _step(trainer: Any, batch_size: int) -> list[int]:
    return [batch_size, trainer.world_size, trainer.accumulate_grad_batches]
