"""Settings of a composed configuration, checked against the place that declares each, and listed for `--help`.

A setting is declared once, by an annotation: `turns: Annotated[int, Ge(1)]`. Settings of a group are declared by the
signature of what the group builds (its `_target_`), those of a command by a class beside its `main`, and those of
libraries (the Trainer, optimisers) by classes that such a class names. Descriptions come from the docstrings.
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

from distilpose.errors import DistilPoseError

PLAIN = (int, float, str, bool, type(None), Path, Any)
CONTAINERS = (list, tuple, dict, Sequence, Mapping)
WORDS: dict[Any, str] = {int: "a whole number", float: "a number", str: "text", bool: "true or false", Path: "a path"}
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
    """Check one value against its annotation; annotations of other things than plain values say nothing.

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
        told = _descriptions(annotation) if isinstance(annotation, type) else {}
        if "_target_" in value:
            target = get_object(value["_target_"])
            known, takes_more = _parameters(target)
            _refuse_unknown(value, known, takes_more, f"{name}.", value["_target_"])
            inner, told = {**known, **inner}, {**_descriptions(target), **told}
        yield from _below(value, f"{name}.", inner, told)


def _refuse_unknown(node: Mapping[str, Any], known: Mapping[str, Any], more: bool, prefix: str, target: str) -> None:
    for key in node:
        if not more and key not in known and key not in RESERVED:
            near = " or ".join(prefix + name for name in get_close_matches(key, known))
            way = f"did you mean {near}?" if near else f"take it out by ~{prefix}{key}."
            raise DistilPoseError(f"{prefix}{key} is no setting of {target.rpartition('.')[2]}: {way}")


def _parameters(target: Callable[..., Any]) -> tuple[dict[str, Any], bool]:
    """Annotations by parameter, those of base classes where a class passes options on; and whether it takes others too."""
    found: dict[str, Any] = {}
    for made in inspect.getmro(target) if isinstance(target, type) else (target,):
        function = vars(made).get("__init__") if isinstance(made, type) else made
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
    """Whether an annotation is of values that a configuration file can hold."""
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
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _bounded(describe(parts[0]), parts[1:])
    if origin is Literal:
        return " or ".join(json.dumps(part) if isinstance(part, bool) else str(part) for part in parts)
    if origin in (typing.Union, types.UnionType):
        ordered = sorted(parts, key=lambda part: part is not type(None))
        return " or ".join("null" if part is type(None) else describe(part) for part in ordered)
    if origin is tuple and Ellipsis not in parts:
        return f"{len(parts)} values, each {describe(parts[0])}"
    if origin in (list, tuple, Sequence):
        return f"a list, each {describe(parts[0])}"
    return WORDS.get(annotation, "a list" if annotation in (list, tuple, Sequence) else "settings by name")


def _bounded(what: str, bounds: Sequence[Any]) -> str:
    told, unit = [], ""
    for bound in bounds:
        if isinstance(bound, Ge):
            told.append(f"of at least {bound.ge}")
        elif isinstance(bound, Gt):
            told.append(f"above {bound.gt}")
        elif isinstance(bound, Le):
            told.append(f"of at most {bound.le}")
        elif isinstance(bound, Lt):
            told.append(f"below {bound.lt}")
        elif isinstance(bound, MultipleOf):
            told.append(f"that {bound.multiple_of} divides")
        elif isinstance(bound, (Len, MinLen)):
            told.append(f"with at least {bound.min_length} entries")
        elif isinstance(bound, Unit):
            unit = f" {bound.unit}"
    return " ".join([what + (f" of{unit}" if unit and not told else ""), " and ".join(told)]).rstrip() + (
        unit if told else ""
    )


def _descriptions(declared: Any) -> dict[str, str]:
    """By name the first sentence that the `Args` or `Attributes` of a docstring say, a base class's where it says none."""
    made = inspect.getmro(declared) if isinstance(declared, type) else (declared,)
    found: dict[str, str] = {}
    for one in reversed(made):
        doc = inspect.cleandoc(vars(one).get("__doc__") or "" if isinstance(one, type) else one.__doc__ or "")
        section = re.search(r"^(?:Args|Attributes):\n((?:    .*\n?|\n)+)", doc, re.MULTILINE)
        for entry in re.findall(
            r"^    (\w+)[^:\n]*: ((?:.+\n?)(?:        .*\n?)*)", section[1] if section else "", re.MULTILINE
        ):
            found[entry[0]] = " ".join(entry[1].split()).split(". ")[0].rstrip(".")
    return found
