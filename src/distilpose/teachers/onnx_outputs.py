"""What the outputs of a foreign network are, by their names and shapes: heat maps, a SimCC pair, or MoveNet's four."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Literal, NamedTuple

from torch import Tensor

from distilpose.errors import DistilPoseError
from distilpose.teachers.readout import MIN_CELLS

Kind = Literal["heat maps", "SimCC", "MoveNet"]
SimccValues = Literal["values", "probabilities", "logits"]
_MOVENET = ("heat_?maps?", "cent(re|er)s?", "regressions?", "offsets?")


class Outputs(NamedTuple):
    """Outputs that are read, in the order of their meaning.

    Attributes:
        kind: what they are.
        names: one for heat maps; x and y for SimCC; heat maps, centre, regression and offsets for MoveNet.
        channels_last: whether maps are (N, h, w, K).
        certain: False if x and y of SimCC are only told apart by their order.
    """

    kind: Kind
    names: tuple[str, ...]
    channels_last: bool = False
    certain: bool = True

    def arrange(self, outputs: Sequence[Tensor]) -> list[Tensor]:
        """Maps as (N, K, h, w)."""
        return [output.permute(0, 3, 1, 2) if self.channels_last else output for output in outputs]


def choose_outputs(shapes: Mapping[str, tuple[int, ...]], size: tuple[int, int], where: str) -> Outputs:
    """Which outputs are maps.

    Args:
        shapes: shapes of the outputs by their names.
        size: (H, W) of the crop.
        where: the network, for messages.

    Raises:
        DistilPoseError: none are, or several may be.
    """
    if movenet := _movenet(shapes):
        return movenet
    found = [
        Outputs("heat maps", (name,), last)
        for name, shape in shapes.items()
        for last in (False, True)
        if _are_maps(shape, size, last)
    ]
    first: dict[tuple[str, ...], Outputs] = {}  # a map whose two readings fit is (N, K, h, w)
    for entry in found:
        first.setdefault(entry.names, entry)
    found = list(first.values()) + [
        pair for names in combinations(shapes, 2) if (pair := _simcc(names, shapes, size)) is not None
    ]
    named = [entry for entry in found if all(re.search("heat_?map|simcc", name.lower()) for name in entry.names)]
    found = found if len(found) == 1 else named or found
    if len(found) != 1:
        listed = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
        problem = "none of which fits" if not found else f"of which {len(found)} fit"
        raise DistilPoseError(
            f"{where} gives {listed} for a crop of {size[0]} x {size[1]} (H x W), {problem}: expected heat maps "
            "(N, joints, rows, columns) of its aspect, or SimCC (N, joints, r x width) and (N, joints, r x height); pass "
            "teacher.outputs=[…] to name them."
        )
    return found[0]


def _movenet(shapes: Mapping[str, tuple[int, ...]]) -> Outputs | None:
    names = [[name for name in shapes if re.fullmatch(pattern, name.lower())] for pattern in _MOVENET]
    if not all(len(found) == 1 and len(shapes[found[0]]) == 4 for found in names):
        return None
    order = tuple(name for (name,) in names)
    for last in (False, True):
        channels = [shapes[name][3 if last else 1] for name in order]
        if channels == [channels[0], 1, 2 * channels[0], 2 * channels[0]]:
            return Outputs("MoveNet", order, last)
    return None


def _are_maps(shape: tuple[int, ...], size: tuple[int, int], last: bool) -> bool:
    """Whether an output has the aspect of the crop."""
    if len(shape) != 4:
        return False
    rows, columns = shape[1:3] if last else shape[2:]
    return min(rows, columns) >= MIN_CELLS and abs(rows * size[1] - columns * size[0]) <= max(rows, columns)


def _simcc(names: tuple[str, str], shapes: Mapping[str, tuple[int, ...]], size: tuple[int, int]) -> Outputs | None:
    """A pair of outputs as distributions for x and y, if their lengths are those of the crop."""
    one, other = (shapes[name] for name in names)
    if len(one) != 3 or len(other) != 3 or one[:2] != other[:2] or min(one[2], other[2]) < min(size):
        return None
    orders = [
        order
        for order in (names, names[::-1])
        if shapes[order[0]][2] * size[0] == shapes[order[1]][2] * size[1] and shapes[order[0]][2] >= size[1]
    ]
    if len(orders) == 2:  # a square crop
        told = [order for order in orders if order[0].lower().endswith("x") and order[1].lower().endswith("y")]
        return Outputs("SimCC", (told or orders)[0], certain=bool(told))
    return Outputs("SimCC", orders[0]) if orders else None
