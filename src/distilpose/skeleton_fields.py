"""Limbs and flip pairs that a file or a user states, compared with the joints' names."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import cache
from typing import Any

from distilpose.errors import DistilPoseError
from distilpose.joint_names import pairs_of, split_names

log = logging.getLogger(__name__)


def limbs_of(names: Sequence[str], given: Sequence[Sequence[Any]]) -> list[tuple[int, int]]:
    """Limbs of a file as index pairs counted from 0: of joint names, or of numbers counted from 1 as in COCO.

    Numbers of which one is 0 are counted from 0, as other tools do; this is logged.
    """
    places = {name: place for place, name in enumerate(names)}
    pairs = [(a, b) for a, b in given]
    named = {joint for pair in pairs for joint in pair if isinstance(joint, str) and joint in places}
    numbers = [int(joint) for pair in pairs for joint in pair if joint not in named]
    first = 0 if min(numbers, default=1) == 0 else 1
    if first == 0:
        log_once(f"'skeleton' of the file counts joints from 0, COCO's from 1: its {len(pairs)} limbs are read from 0.")
    a_limb = ([places[joint] if joint in named else int(joint) - first for joint in pair] for pair in pairs)
    return [(a, b) for a, b in a_limb]


def numbered_pairs(names: Sequence[str], given: Sequence[Sequence[int | str]]) -> list[tuple[int, int]]:
    """Pairs of joint names, or of numbers from 0, as numbers."""
    places = {name: place for place, name in enumerate(names)}

    def number(joint: int | str) -> int:
        return places[joint] if isinstance(joint, str) and joint in places else int(joint)

    return [(number(a), number(b)) for a, b in given]


def checked_pairs(names: Sequence[str], given: Sequence[Sequence[int | str]]) -> list[tuple[int, int]]:
    """The pairs of a file, as joint numbers from 0 or as names, compared with those of the names.

    Tools write no pairs, or each joint paired with itself, as a placeholder: then the names decide. Pairs that the names
    state and the file lacks are added.

    Raises:
        DistilPoseError: the file pairs a joint with another one than the names do, or two joints of one side.
    """
    pairs = [(min(a, b), max(a, b)) for a, b in numbered_pairs(names, given)]
    pairs = [pair for pair in dict.fromkeys(pairs) if pair[0] != pair[1]]
    joints = split_names(names)
    by_name = pairs_of(joints)
    partner = dict(by_name) | {b: a for a, b in by_name}
    for a, b in pairs:
        if not 0 <= a <= b < len(names):
            continue  # the skeleton reports it
        one_side = joints[a].side == joints[b].side != "centre"
        if one_side or partner.get(a, b) != b or partner.get(b, a) != a:
            raise DistilPoseError(
                f"flip_pairs pairs {names[a]} with {names[b]} (joints {a} and {b}, counted from 0), but by their names the "
                f"pairs are {[list(pair) for pair in by_name]}: correct flip_pairs in the file, remove it, or give "
                "data.skeleton.flip_pairs."
            )
    missing = [pair for pair in by_name if pair not in pairs]
    if missing:
        log_once(
            f"flip_pairs of the file lists {len(pairs)} pairs and the joints' names state {len(by_name)}: the names decide, "
            f"{len(missing)} pairs are added ({names[missing[0][0]]} / {names[missing[0][1]]}, …); "
            "data.skeleton.flip_pairs sets others."
        )
    return sorted([*pairs, *missing])


def log_override(names: Sequence[str], given: Sequence[Sequence[int]]) -> None:
    """Log pairs that a user chose against the names."""
    by_name = {frozenset(pair) for pair in pairs_of(split_names(names))}
    chosen = {frozenset(pair) for pair in given}
    if chosen != by_name:
        log_once(
            f"data.skeleton.flip_pairs sets {len(chosen)} pairs, of which {len(chosen & by_name)} are among the "
            f"{len(by_name)} that the joints' names state."
        )


@cache
def log_once(message: str) -> None:
    """Log a warning about a file the first time only: several readers meet the same file."""
    log.warning(message)
