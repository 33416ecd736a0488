"""Losses are computed in float32 (float64 for float64 inputs), whatever the mixed precision of the networks."""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
from torch import Tensor


def full_precision(tensor: Tensor) -> Tensor:
    """The tensor in float32; a float64 tensor unchanged."""
    return tensor if tensor.dtype == torch.float64 else tensor.float()


def without_autocast(forward: Callable) -> Callable:
    """Decorator that runs a module's forward outside autocast on the device of its first tensor."""

    @functools.wraps(forward)
    def wrapped(self, *args, **kwargs):
        first = next(arg for arg in args if isinstance(arg, Tensor))
        with torch.autocast(first.device.type, enabled=False):
            return forward(self, *args, **kwargs)

    return wrapped
