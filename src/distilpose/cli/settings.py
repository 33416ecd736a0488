"""Validates the settings of a composed configuration where each is declared, and describes them for `--help`.

A setting is declared once, by an annotation: `turns: Annotated[int, Ge(1)]`. Settings of a group are declared by the
signature of what the group builds (its `_target_`), those of a command by a class beside its `main`, and those of
libraries (the Trainer, optimizers) by classes that such a class names. Descriptions come from the docstrings.
pydantic compares a value with its annotation; Hydra's structured configs know types, but no ranges.
"""

from __future__ import annotations

import inspect
import json
import re
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, get_args, get_origin

from annotated_types import Ge, Gt, Le, Len, Lt, MinLen, MultipleOf, Unit
from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf
from pydantic import ConfigDict, TypeAdapter, ValidationError

from distilpose.errors import DistilPoseError, first_line

PLAIN = (int, float, str, bool, type(None), Path, Any)
CONTAINERS = (list, tuple, dict, Sequence, Mapping)
WORDS: dict[Any, str] = {int: "a whole number", float: "a number", str: "text", Path: "a path", Any: "anything"}
MISSING = "???"
# keys of Hydra's instantiate
RESERVED = ("_target_", "_partial_", "_convert_", "_recursive_", "_args_")


class Setting(NamedTuple):
    """One setting of a configuration.

    Attributes:
        name: as it is set on the command line, such as "data.batch_size".
        value: what it is.
        annotation: its declaration; None where nothing declares it.
        description: first sentence of its documentation, "" without one.
    """

    name: str
    value: Any
    annotation: Any
    description: str


def validate(cfg: DictConfig, declared: type) -> None:
    """Check all settings of a command before any of them is used.

    Args:
        cfg: as composed.
        declared: class whose annotations declare the command's own settings.

    Raises:
        DistilPoseError: naming the first setting that is not as declared, its value and what is expected.
    """
    for setting in settings_of(cfg, declared):
        check(setting.name, setting.value, setting.annotation)


def check(name: str, value: Any, annotation: Any) -> None:
    """Check one value against its annotation; one that is not of plain values is not checked.

    Args:
        name: of the setting.
        value: plain, as in a configuration file.
        annotation: its declaration.

    Raises:
        DistilPoseError: the value is not as declared.
    """
    if annotation is None or value == MISSING or not _is_plain(annotation):
        return
    try:
        text = json.dumps(value)  # in JSON a list may be a tuple and text a path, and nothing else becomes another type
        TypeAdapter(annotation, config=ConfigDict(strict=True, allow_inf_nan=False)).validate_json(text)
    except ValidationError as error:
        shown = json.dumps(value) if value is None or isinstance(value, bool) else value
        raise DistilPoseError(
            f"{name}={shown} must be {describe(annotation)}: give {name}=…, --help lists what each setting takes."
        ) from error


def settings_of(cfg: DictConfig, declared: type) -> Iterator[Setting]:
    """Every setting with its declaration, a group's own beneath it.

    Raises:
        DistilPoseError: what a group builds has no setting of that name.
    """
    content: Any = OmegaConf.to_container(cfg, resolve=True)
    yield from _below(content, "", _annotations(declared), _descriptions(declared))


def _below(node: Mapping[str, Any], prefix: str, annotations: Mapping[str, Any], about: Mapping[str, str]) -> Iterator:
    for key, value in node.items():
        name, annotation = f"{prefix}{key}", annotations.get(key)
        if key in RESERVED:
            continue
        if not isinstance(value, dict) or (annotation is not None and _is_plain(annotation)):
            yield Setting(name, value, annotation, about.get(key, ""))
            continue
        inner = _annotations(annotation) if isinstance(annotation, type) else {}
        described = _descriptions(annotation) if isinstance(annotation, type) else {}
        if "_target_" in value:
            target = _load_target(name, value["_target_"])
            known, takes_more = _parameters(target)
            if not takes_more:
                _check_names(value, known, f"{name}.", value["_target_"])
            inner, described = {**known, **inner}, {**_descriptions(target), **described}
        yield from _below(value, f"{name}.", inner, described)


def _load_target(name: str, path: str) -> Callable[..., Any]:
    try:
        return get_object(path)
    except (ImportError, AttributeError, ValueError, TypeError) as error:
        raise DistilPoseError(
            f"{name}._target_={path} cannot be imported ({first_line(error)}): correct it, or install what it needs."
        ) from error


def _check_names(node: Mapping[str, Any], known: Mapping[str, Any], prefix: str, target: str) -> None:
    """Raise an error for a setting that the target has no parameter for."""
    for key in node:
        if key not in known and key not in RESERVED:
            near = " or ".join(prefix + name for name in get_close_matches(key, known))
            way = f"take it out by ~{prefix}{key}{f', or did you mean {near}?' if near else '.'}"
            raise DistilPoseError(f"{prefix}{key} is no setting of {target.rpartition('.')[2]}: {way}")


def _parameters(target: Callable[..., Any]) -> tuple[dict[str, Any], bool]:
    """Annotations by parameter, and whether other parameters are accepted too.

    Where a class passes `**options` on, the parameters of its base class count as well.
    """
    found: dict[str, Any] = {}
    for owner in inspect.getmro(target) if isinstance(target, type) else (target,):
        function = vars(owner).get("__init__") if isinstance(owner, type) else owner
        if function is None:
            continue
        parameters = inspect.signature(function).parameters.values()
        hints = _hints(function)
        named = (one for one in parameters if one.kind not in (one.VAR_KEYWORD, one.VAR_POSITIONAL))
        found = {one.name: hints.get(one.name) for one in named if one.name != "self"} | found
        if not any(one.kind is one.VAR_KEYWORD for one in parameters):
            return found, False
    return found, True


def _hints(thing: Any) -> dict[str, Any]:
    try:
        return typing.get_type_hints(thing, include_extras=True)
    except (NameError, TypeError):  # a library's, of names that it imports for type checkers alone
        return {}


def _annotations(declared: type) -> dict[str, Any]:
    return _hints(declared)


def _is_plain(annotation: Any) -> bool:
    """Whether an annotation is of values that a configuration file can hold, and of nothing else."""
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _is_plain(parts[0])
    if origin is Literal:
        return True
    if origin in (typing.Union, types.UnionType, *CONTAINERS):
        return all(part is Ellipsis or _is_plain(part) for part in parts)
    return annotation in PLAIN or annotation in CONTAINERS


def describe(annotation: Any) -> str:
    """What an annotation allows, in words: "a whole number of at least 1", "cpu or cuda", "null or a path"."""
    texts = list(dict.fromkeys(_alternatives(annotation)))
    if "null" in texts:
        texts = ["null", *(text for text in texts if text != "null")]
    return " or ".join([", ".join(texts[:-1]), texts[-1]] if texts[:-1] else texts)


def _alternatives(annotation: Any) -> list[str]:
    """What an annotation allows, a text for each alternative."""
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return [_bounded(describe(parts[0]), parts[1:])]
    if origin is Literal:
        return [json.dumps(part) if isinstance(part, bool) else str(part) for part in parts]
    if origin in (typing.Union, types.UnionType):
        plain = [
            part for part in parts if _is_plain(part)
        ]  # code may give objects of a library, the command line cannot
        wider = {int: float, str: Path}
        return [text for part in plain if wider.get(part) not in plain for text in _alternatives(part)]
    if annotation is bool:
        return ["true", "false"]
    if annotation is type(None):
        return ["null"]
    if origin is tuple and Ellipsis not in parts:
        return [f"a list of {len(parts)}, each {describe(parts[0])}"]
    if origin in (list, tuple, Sequence):
        return [f"a list, each {describe(parts[0])}"]
    return [WORDS.get(annotation, "a list" if annotation in (list, tuple, Sequence) else "settings by name")]


def _bounded(what: str, bounds: Sequence[Any]) -> str:
    """A text with its bounds and its unit: "a number above 0 and at most 1"."""
    found = {type(bound): bound for bound in bounds}
    low, high, conditions = "", "", []
    if (ge := found.get(Ge)) is not None:
        low = f"of at least {ge.ge}"
    if (gt := found.get(Gt)) is not None:
        low = f"above {gt.gt}"
    if (le := found.get(Le)) is not None:
        high = f"at most {le.le}" if low else f"of at most {le.le}"
    if (lt := found.get(Lt)) is not None:
        high = f"below {lt.lt}"
    if ge is not None and le is not None:
        conditions.append(f"from {ge.ge} to {le.le}")
    elif low or high:
        conditions.append(" and ".join(filter(None, (low, high))))
    if (unit := found.get(Unit)) is not None:
        conditions[:] = [f"{condition} {unit.unit}" for condition in conditions] or [f"of {unit.unit}"]
    if (step := found.get(MultipleOf)) is not None:
        conditions.append(f"that {step.multiple_of} divides")
    for bound in bounds:
        if isinstance(bound, (Len, MinLen)):
            exact = bound.min_length == getattr(bound, "max_length", None)
            conditions.append(f"with {'' if exact else 'at least '}{bound.min_length} entries")
    return " ".join([what, *conditions])


def _descriptions(declared: Any) -> dict[str, str]:
    """The first sentence on each name in `Args` or `Attributes` of a docstring; those of base classes too."""
    owners = reversed(inspect.getmro(declared)) if isinstance(declared, type) else [declared]
    found: dict[str, str] = {}
    for owner in owners:
        doc = inspect.cleandoc(vars(owner).get("__doc__") or "" if isinstance(owner, type) else owner.__doc__ or "")
        section = re.search(r"^(?:Args|Attributes):\n((?:    .*\n?|\n)+)", doc, re.MULTILINE)
        entries = re.findall(
            r"^    (\w+)[^:\n]*: ((?:.+\n?)(?:        .*\n?)*)", section[1] if section else "", re.MULTILINE
        )
        for name, text in entries:
            found[name] = " ".join(text.split()).split(". ")[0].rstrip(".")
    return found
