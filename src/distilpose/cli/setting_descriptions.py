"""Describes the allowed values and the purpose of settings in words, from annotations and docstrings."""

from __future__ import annotations

import inspect
import json
import re
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

from annotated_types import Ge, Gt, Le, Len, Lt, MinLen, MultipleOf, Unit

PLAIN = (int, float, str, bool, type(None), Path, Any)
CONTAINERS = (list, tuple, dict, Sequence, Mapping)
WORDS: dict[Any, str] = {int: "a whole number", float: "a number", str: "text", Path: "a path", Any: "anything"}
# an entry of a docstring's section: a name, an optional type, and the text
ENTRY = re.compile(r"^    (\w+)[^:\n]*: ((?:.+\n?)(?:        .*\n?)*)", re.MULTILINE)


def is_plain(annotation: Any) -> bool:
    """Whether a configuration file can hold every value that the annotation allows."""
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return is_plain(parts[0])
    if origin is Literal:
        return True
    if origin in (typing.Union, types.UnionType, *CONTAINERS):
        return all(part is Ellipsis or is_plain(part) for part in parts)
    return annotation in PLAIN or annotation in CONTAINERS


def describe(annotation: Any) -> str:
    """Describe the allowed values: "a whole number of at least 1", "cpu or cuda", "null or a path"."""
    # null first, and a list with its entries last
    texts = sorted(
        dict.fromkeys(_alternatives(annotation)), key=lambda text: (text != "null", text.startswith("a list"))
    )
    return " or ".join([", ".join(texts[:-1]), texts[-1]] if texts[:-1] else texts)


def _alternatives(annotation: Any) -> list[str]:
    """Describe each alternative of an annotation."""
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return [_bounded(describe(parts[0]), parts[1:])]
    if origin is Literal:
        return [json.dumps(part) if isinstance(part, bool) else str(part) for part in parts]
    if origin in (typing.Union, types.UnionType):
        # objects of a library can be passed in code, but not on the command line
        plain = [part for part in parts if is_plain(part)]
        wider = {int: float, str: Path}
        return [text for part in plain if wider.get(part) not in plain for text in _alternatives(part)]
    if annotation is bool:
        return ["true", "false"]
    if annotation is type(None):
        return ["null"]
    if origin is tuple and Ellipsis not in parts:
        return [f"a list of {len(parts)}, each {describe(parts[0])}"]
    if origin in (dict, Mapping) and get_origin(parts[0]) is Literal:
        return [f"settings by name ({', '.join(map(str, get_args(parts[0])))}), each {describe(parts[1])}"]
    if origin in (list, tuple, Sequence):
        return [f"a list, each {describe(parts[0])}"]
    return [WORDS.get(annotation, "a list" if annotation in (list, tuple, Sequence) else "settings by name")]


def _bounded(what: str, bounds: Sequence[Any]) -> str:
    """Add bounds and unit to a description: "a number above 0 and at most 1"."""
    by_type = {type(bound): bound for bound in bounds}
    low, high, conditions = "", "", []
    if (ge := by_type.get(Ge)) is not None:
        low = f"of at least {ge.ge}"
    if (gt := by_type.get(Gt)) is not None:
        low = f"above {gt.gt}"
    if (le := by_type.get(Le)) is not None:
        high = f"at most {le.le}" if low else f"of at most {le.le}"
    if (lt := by_type.get(Lt)) is not None:
        high = f"below {lt.lt}"
    if ge is not None and le is not None:
        conditions.append(f"from {ge.ge} to {le.le}")
    elif low or high:
        conditions.append(" and ".join(filter(None, (low, high))))
    if (unit := by_type.get(Unit)) is not None:
        conditions[:] = [f"{condition} {unit.unit}" for condition in conditions] or [f"of {unit.unit}"]
    if (step := by_type.get(MultipleOf)) is not None:
        conditions.append(f"that {step.multiple_of} divides")
    for bound in bounds:
        if isinstance(bound, (Len, MinLen)):
            exact = bound.min_length == getattr(bound, "max_length", None)
            what = what.replace("a list", f"a list of {'' if exact else 'at least '}{bound.min_length}", 1)
    return " ".join([what, *conditions])


def descriptions(declared: Any) -> dict[str, str]:
    """The first sentence about each name in a docstring's `Args` or `Attributes`, base classes included."""
    owners = reversed(inspect.getmro(declared)) if isinstance(declared, type) else [declared]
    sentences: dict[str, str] = {}
    for owner in owners:
        documented = (owner, vars(owner).get("__init__")) if isinstance(owner, type) else (owner,)
        for thing in documented:
            doc = inspect.cleandoc((vars(thing).get("__doc__") if isinstance(thing, type) else thing.__doc__) or "")
            section = re.search(r"^(?:Args|Attributes):\n((?:    .*\n?|\n)+)", doc, re.MULTILINE)
            for name, text in ENTRY.findall(section[1] if section else ""):
                sentences[name] = " ".join(text.split()).split(". ")[0].rstrip(".")
    return sentences
