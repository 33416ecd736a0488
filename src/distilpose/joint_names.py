"""Joint names of any tool as a side and a part of the body, and the left-right pairs that follow from them.

left_hip, LHip, hip.L, HipLeft and lhip are the left hip. The words left and right always name a side. Weaker marks, a letter
(l_hip, LHip, hipL), a side without a separator (lefthip, lhip) or another language (hombro_izquierdo, 左肩), count only if the
names have the counterpart: lip, rib, larynx and leftover have no side.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Literal, NamedTuple

Side = Literal["left", "right", "centre"]

_SIDES: dict[str, Side] = {"left": "left", "right": "right"}
_OTHER: dict[Side, Side] = {"left": "right", "right": "left"}
_SHORT_SIDES: dict[str, Side] = {
    "l": "left", "r": "right", "lt": "left", "rt": "right", "lft": "left", "rgt": "right", "rht": "right",
}  # fmt: skip
_OTHER_LANGUAGES: dict[str, Side] = {
    "links": "left", "linke": "left", "linker": "left", "linkes": "left", "rechts": "right", "rechte": "right",
    "rechter": "right", "rechtes": "right", "gauche": "left", "droite": "right", "droit": "right", "izquierdo": "left",
    "izquierda": "left", "derecho": "right", "derecha": "right", "esquerdo": "left", "esquerda": "left", "direito": "right",
    "direita": "right", "sinistro": "left", "sinistra": "left", "destro": "right", "destra": "right", "левый": "left",
    "левая": "left", "левое": "left", "правый": "right", "правая": "right", "правое": "right",
}  # fmt: skip
# written without a separator
_CHARACTERS: dict[str, Side] = {"左": "left", "右": "right", "왼": "left", "오른": "right"}
_LETTERS: dict[str, Side] = {"l": "left", "r": "right"}
# abbreviations of motion capture (Plug-in Gait: LSHO, LELB) and of joint angles
_PARTS = {
    "sho": "shoulder", "shld": "shoulder", "shldr": "shoulder", "elb": "elbow", "wri": "wrist", "wrst": "wrist",
    "kne": "knee", "ank": "ankle",
}  # fmt: skip
# parts of a body that come in pairs: with one of these, a side without its counterpart is a side too
_PAIRED = re.compile(
    r"shoulder|elbow|wrist|hip|knee|ankle|eye|ear|foot|heel|toe|hand|arm|leg|thigh|shin|thumb|finger|palm|cheek|brow|paw|hoof|"
    r"wing|clavicle|collar"
)
_RUNS = re.compile(r"[^\W\d_]+|\d+")
_CAMEL = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")


class JointName(NamedTuple):
    """A joint's name in parts.

    Attributes:
        side: side of the body, "centre" for a joint without a side.
        part: the other words in lower case, joined by "_", such as shoulder or head_top.
    """

    side: Side
    part: str

    @property
    def key(self) -> tuple[Side, str]:
        """What names of different tools are compared by: HeadTop, head_top and headtop are the same."""
        return self.side, self.part.replace("_", "")


class _Reading(NamedTuple):
    """One way to read a name: its side, the other words, and where the side is written ("*" in the pattern)."""

    side: Side
    words: tuple[str, ...]
    pattern: str
    style: str

    @property
    def patterns(self) -> tuple[str, ...]:
        """Patterns of a counterpart: a side in a word of its own may stand elsewhere, as in hip.L and right_hip."""
        return (self.pattern,) if "glued" in self.style else (self.pattern, " ".join(self.words))

    @property
    def part(self) -> str:
        return "_".join(_PARTS.get(word, word) for word in self.words if word)


def split_names(names: Sequence[str]) -> list[JointName]:
    """Side and part of each name.

    Args:
        names: all joints of a set, because weak marks of a side need a counterpart; see the module.
    """
    return list(_split_names(tuple(names)))


@lru_cache(maxsize=256)
def _split_names(names: tuple[str, ...]) -> tuple[JointName, ...]:
    readings = [_readings(name) for name in names]
    weak = {(pattern, one.side) for row in readings for one in row for pattern in one.patterns}
    chosen = [_with_counterpart(row, weak) for row in readings]
    styles = {one.style for one in chosen if one is not None}
    for index, row in enumerate(readings):
        if chosen[index] is None:  # a side without its counterpart, in a style that other names of the set have
            chosen[index] = next((one for one in row if _is_sure(one, styles)), None)
    sides = {(one.side, one.part) for one in chosen if one is not None}
    for index, row in enumerate(readings):
        if chosen[index] is None:  # a counterpart in another style: Rknee beside LKnee, as Halpe writes them
            chosen[index] = next((one for one in row if _completes(one, sides)), None)
    return tuple(
        JointName("centre", "_".join(_PARTS.get(word, word) for word in _words(name)))
        if one is None
        else JointName(one.side, one.part)
        for name, one in zip(names, chosen, strict=True)
    )


def _with_counterpart(row: Sequence[_Reading], known: set[tuple[str, Side]]) -> _Reading | None:
    """The strongest reading that is certain: a word for the side, or a weaker mark whose counterpart exists."""
    for one in row:
        if one.style == "word" or any((pattern, _OTHER[one.side]) in known for pattern in one.patterns):
            return one
    return None


def _completes(one: _Reading, sides: set[tuple[Side, str]]) -> bool:
    """Whether a weak mark makes the second of two joints of which the names have only the first."""
    return (_OTHER[one.side], one.part) in sides and (one.side, one.part) not in sides


def _is_sure(one: _Reading, styles: set[str]) -> bool:
    """Whether a weak mark without a counterpart is a side: on a paired part, glued left or right, or as in other names."""
    if one.style == "other language":
        return one.style in styles
    paired = any(_PAIRED.fullmatch(_PARTS.get(word, word)) for word in one.words)
    is_rear = (
        one.style.startswith("glued letter") and "*ear" in one.pattern and one.side == "right"
    )  # a rear_leg, no right ear
    return paired and not is_rear and (one.style == "glued word" or one.style in styles)


def _words(name: str) -> list[str]:
    """Words of a name in lower case: split at separators, digits and capitals."""
    words: list[str] = []
    for run in _RUNS.findall(name):
        words += _CAMEL.findall(run) if run.isascii() and run.isalpha() else [run]
    return [word.lower() for word in words]


def _readings(name: str) -> list[_Reading]:
    """All ways to read a name with a side, the strongest first."""
    words = _words(name)
    found: dict[str, list[_Reading]] = {
        "word": [],
        "other language": [],
        "glued word": [],
        "letter": [],
        "glued letter": [],
    }

    def add(style: str, place: int, side: Side, before: str, after: str, detail: str = "") -> None:
        # words around the mark; the rest of a word that the mark is glued to stays in its place
        rest = (*words[:place], *filter(None, (before, after)), *words[place + 1 :])
        pattern = " ".join((*words[:place], f"{before}*{after}", *words[place + 1 :]))
        found[style].append(_Reading(side, rest, pattern, style + detail))

    for place, word in enumerate(words):
        if word in _SIDES:
            add("word", place, _SIDES[word], "", "")
            continue
        if word in _OTHER_LANGUAGES:
            add("other language", place, _OTHER_LANGUAGES[word], "", "")
        for mark, side in _CHARACTERS.items():
            if word.startswith(mark):
                add("other language", place, side, "", word.removeprefix(mark))
            elif word.endswith(mark):
                add("other language", place, side, word.removesuffix(mark), "")
        for mark, side in _SIDES.items():
            if word.startswith(mark):
                add("glued word", place, side, "", word.removeprefix(mark))
            elif word.endswith(mark):
                add("glued word", place, side, word.removesuffix(mark), "")
        if word in _SHORT_SIDES:
            add("letter", place, _SHORT_SIDES[word], "", "", " first" if place == 0 else "")
        for mark, side in _LETTERS.items():
            if len(word) > 1 and word.startswith(mark):
                add("glued letter", place, side, "", word[1:], " first")
            if len(word) > 1 and word.endswith(mark):
                add("glued letter", place, side, word[:-1], "")
    return [one for row in found.values() for one in row]


def pairs_of(joints: Sequence[JointName]) -> list[tuple[int, int]]:
    """Joints whose names differ only in left and right, in order of first appearance."""
    lefts, rights = (
        {joint.key[1]: index for index, joint in enumerate(joints) if joint.side == side} for side in ("left", "right")
    )
    pairs = [(lefts[part], rights[part]) for part in lefts if part in rights]
    return sorted((min(pair), max(pair)) for pair in pairs)
