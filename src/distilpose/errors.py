"""The one error that a user of DistilPose reads."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any


class DistilPoseError(ValueError):
    """A mistake in a setting, a file or a call.

    The message is one sentence that names the value, what is expected and what to do. A command prints it without a stack
    trace and exits with status 1 (`distilpose.cli.command`); library code catches it as a `ValueError`.
    """


def check_number(
    name: str,
    value: Any,
    least: float | None = None,
    most: float | None = None,
    *,
    above: float | None = None,
    below: float | None = None,
    whole: bool = False,
) -> None:
    """Raise an error for a setting that is no number of its range.

    Args:
        name: as it is set on the command line, such as "data.batch_size".
        value: what it is.
        least: lowest value allowed.
        most: highest value allowed.
        above: bound below all values allowed.
        below: bound above all values allowed.
        whole: whether it counts something.
    """
    kinds = int if whole else (int, float)
    good = isinstance(value, kinds) and not isinstance(value, bool) and _is_finite(value)
    good = good and (least is None or value >= least) and (most is None or value <= most)
    good = good and (above is None or value > above) and (below is None or value < below)
    if not good:
        bounds = [(above, "above"), (least, "of at least"), (most, "of at most"), (below, "below")]
        told = " and ".join(f"{word} {bound}" for bound, word in bounds if bound is not None)
        raise DistilPoseError(f"{name}={value} must be a {'whole ' if whole else ''}number{told and ' '}{told}.")


def _is_finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number beyond all floating-point ones
        return False


def check_flag(name: str, value: Any) -> None:
    """Raise an error for a setting that is neither true nor false: any text, also "no", would count as true."""
    if not isinstance(value, bool):
        raise DistilPoseError(f"{name}={value} must be true or false.")


def check_size(name: str, value: Any) -> tuple[int, int]:
    """Height and width, if `value` is two positive whole numbers; else an error that names the setting."""
    if isinstance(value, Sequence) and len(value) == 2 and all(isinstance(side, int) and side > 0 for side in value):
        return (value[0], value[1])
    raise DistilPoseError(f"{name}={value!r} must be two positive whole numbers, height first.")


def first_line(error: BaseException) -> str:
    """First line of an error message, without the explanations that some libraries add; the error's type if it has none."""
    return (str(error).splitlines() or [type(error).__name__])[0]
