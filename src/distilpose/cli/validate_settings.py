"""Checks each setting of a composed configuration against its declaration, and describes it for `--help`.

A setting is declared once, by an annotation: `turns: Annotated[int, Ge(1)]`. The settings of a group are declared in the
signature of its `_target_`, those of a command in a class beside its `main`, and those of libraries (the Trainer,
optimizers) in classes that the command's class refers to. Descriptions come from the docstrings.
pydantic compares a value with its annotation. Hydra's structured configs are not used because they have no ranges.
"""

from __future__ import annotations

import inspect
import json
import typing
from collections.abc import Callable, Iterator, Mapping
from difflib import get_close_matches
from typing import Any, NamedTuple

from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf
from pydantic import ConfigDict, TypeAdapter, ValidationError

from distilpose.cli.setting_descriptions import describe, descriptions, is_plain
from distilpose.errors import DistilPoseError

MISSING = "???"
# keys of Hydra's instantiate
RESERVED = ("_target_", "_partial_", "_convert_", "_recursive_", "_args_")


class Group:
    """A group of settings with a `_target_`, which declares those that a subclass of this class does not declare."""


class Setting(NamedTuple):
    """One setting of a configuration.

    Attributes:
        name: name on the command line, such as "data.batch_size".
        value: its value in the configuration.
        annotation: its declaration; None if it has none.
        description: first sentence of its documentation; "" if it has none.
    """

    name: str
    value: Any
    annotation: Any
    description: str


def validate_command(cfg: DictConfig, declared: type) -> None:
    """`validate`, and check that the command's own settings are those that `declared` has, no more and no less."""
    content: Any = OmegaConf.to_container(cfg, resolve=True)
    _check_names(content, hints_of(declared), "", "this command")
    missing = [name for name, hint in hints_of(declared).items() if name not in content and not _takes_null(hint)]
    if missing:
        raise DistilPoseError(f"{missing[0]} is missing: leave ~{missing[0]} out, or give {missing[0]}=….")
    validate(cfg, declared)


def validate(cfg: DictConfig, declared: type) -> None:
    """Check all settings of a command before any of them is used.

    Args:
        cfg: composed configuration.
        declared: class whose annotations declare the command's own settings.

    Raises:
        DistilPoseError: a setting has a wrong value; the message names it and what is expected.
    """
    for setting in settings_of(cfg, declared):
        check(setting.name, setting.value, setting.annotation)


def check(name: str, value: Any, annotation: Any) -> None:
    """Check one value against its annotation. A setting whose annotation is not plain (see `is_plain`) is not checked.

    Args:
        name: name of the setting.
        value: plain value, as in a configuration file.
        annotation: its declaration.

    Raises:
        DistilPoseError: the value is not as declared.
    """
    if annotation is None or value == MISSING or not is_plain(annotation):
        return
    try:
        # with JSON as input, a list may become a tuple and text a path; all other types must match
        text = json.dumps(value)
        TypeAdapter(annotation, config=ConfigDict(strict=True, allow_inf_nan=False)).validate_json(text)
    except ValidationError as error:
        shown = json.dumps(value) if value is None or isinstance(value, bool) else value
        raise DistilPoseError(
            f"{name}={shown} must be {describe(annotation)}: give {name}=…, --help lists what each setting takes."
        ) from error


def settings_of(cfg: DictConfig, declared: type) -> Iterator[Setting]:
    """Every setting with its declaration, those inside groups included.

    Raises:
        DistilPoseError: the `_target_` of a group has no parameter of that name.
    """
    content: Any = OmegaConf.to_container(cfg, resolve=True)
    yield from _below(content, "", hints_of(declared), descriptions(declared))


def _below(node: Mapping[str, Any], prefix: str, annotations: Mapping[str, Any], about: Mapping[str, str]) -> Iterator:
    for key, value in node.items():
        name, annotation = f"{prefix}{key}", annotations.get(key)
        if key in RESERVED:
            continue
        declaring = _declaring_class(annotation)
        is_group = isinstance(value, dict) or (value is None and _takes_null(annotation))
        if declaring is not None and not is_group:
            raise DistilPoseError(
                f"{name}={json.dumps(value)} must be settings by name, such as {name}.NAME=VALUE: --help lists them."
            )
        if not isinstance(value, dict) or (annotation is not None and is_plain(annotation)):
            yield Setting(name, value, annotation, about.get(key, ""))
            continue
        inner = hints_of(declaring) if declaring is not None else {}
        described = descriptions(declaring) if declaring is not None else {}
        if "_target_" not in value and declaring is not None:
            if issubclass(declaring, Group):
                raise DistilPoseError(f"{name} has no _target_: leave ~{name}._target_ out, or give {name}._target_=….")
            # groups may be added to it, or removed by null
            plain = {key: part for key, part in value.items() if part is not None and not isinstance(part, dict)}
            _check_names(plain, inner, name, name)
        if "_target_" in value:
            target = _load_target(name, value["_target_"])
            known, takes_more = parameters_of(target)
            if not takes_more:
                _check_names(value, known, name, value["_target_"])
            inner, described = {**known, **inner}, {**descriptions(target), **described}
        yield from _below(value, f"{name}.", inner, described)


def _declaring_class(annotation: Any) -> type | None:
    """The class of this package that declares a group's settings, also where null is allowed in its place."""
    parts = [part for part in typing.get_args(annotation) or (annotation,) if part is not type(None)]
    (only,) = parts if len(parts) == 1 else (None,)
    return only if isinstance(only, type) and only.__module__.startswith(("distilpose", "__main__")) else None


def _takes_null(annotation: Any) -> bool:
    return annotation is None or type(None) in typing.get_args(annotation)


def _load_target(name: str, path: str) -> Callable[..., Any]:
    try:
        return get_object(str(path))
    except (ImportError, AttributeError, ValueError, TypeError) as error:
        reason = " ".join(str(error).split())
        raise DistilPoseError(
            f"{name}._target_={path} cannot be imported ({reason}): correct it, or install what it needs."
        ) from error


def _check_names(node: Mapping[str, Any], known: Mapping[str, Any], group: str, target: str) -> None:
    """Raise an error for a setting of a group (or, with group "", of the command) that is not known."""
    prefix = f"{group}." if group else ""
    for key in node:
        if key not in known and key not in RESERVED:
            near = " or ".join(prefix + name for name in get_close_matches(key, known))
            way = f"leave it out, or remove it by ~{prefix}{key}{f'; did you mean {near}?' if near else '.'}"
            raise DistilPoseError(f"{prefix}{key} is not a setting of {target.rpartition('.')[2]}: {way}")


def parameters_of(target: Callable[..., Any]) -> tuple[dict[str, Any], bool]:
    """Annotations by parameter, and whether other parameters are accepted too.

    If a class has `**options`, the parameters of its base class are included.
    """
    annotations: dict[str, Any] = {}
    for owner in inspect.getmro(target) if isinstance(target, type) else (target,):
        if owner is object:
            return annotations, False
        function = vars(owner).get("__init__") if isinstance(owner, type) else owner
        if function is None:
            continue
        parameters = inspect.signature(function).parameters.values()
        hints = hints_of(function)
        named = (one for one in parameters if one.kind not in (one.VAR_KEYWORD, one.VAR_POSITIONAL))
        annotations = {one.name: hints.get(one.name) for one in named if one.name != "self"} | annotations
        if not any(one.kind is one.VAR_KEYWORD for one in parameters):
            return annotations, False
    return annotations, True


def hints_of(thing: Any) -> dict[str, Any]:
    """Annotations of a class or a function by name."""
    try:
        return typing.get_type_hints(thing, include_extras=True)
    except (NameError, TypeError):  # names that a library imports only for type checkers
        return {}
