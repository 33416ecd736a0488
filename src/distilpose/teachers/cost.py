"""The cost of networks of other makers, by which a trial run on a CPU is kept short."""

from __future__ import annotations

from time import perf_counter
from typing import TYPE_CHECKING

import torch
from torch.utils.flop_counter import FlopCounterMode

if TYPE_CHECKING:
    from distilpose.teachers.network import Network

# GMACs a second that a network is taken for whose operations torch does not see, about those of a few CPU cores
RATE = 20.0


def network_gmacs(network: Network) -> float:
    """Billions of multiply-accumulates for one crop; estimated from the time if another library runs the network.

    Args:
        network: the network, on the CPU.
    """
    crop = torch.zeros(1, 3, *network.convention.input_size)
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        network(crop)  # what is opened on first use does not count below
    operations = counter.get_total_flops()
    if operations > 0:
        return operations / 2e9
    start = perf_counter()
    network(crop)
    return RATE * (perf_counter() - start)
