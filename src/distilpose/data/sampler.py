"""Which training person is shown when, and how: decided by the seed and the epoch alone."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from torch.utils.data import DistributedSampler


class ViewSampler(DistributedSampler):
    """This process's share of a shuffle, each index with the seed of the view it is to be shown in.

    The views depend neither on the loading processes nor on how many of them or of GPUs there are, nor on whether the run
    was interrupted: a resumed epoch is the one that would have been.
    """

    def __iter__(self) -> Iterator[tuple[int, int]]:
        """(index, seed) pairs, to ask a `CocoKeypoints` for."""
        count = len(self.dataset)  # type: ignore[arg-type]
        seeds = np.random.default_rng((self.seed, self.epoch)).integers(2**31 - 1, size=count)
        return ((index, int(seeds[index])) for index in super().__iter__())
