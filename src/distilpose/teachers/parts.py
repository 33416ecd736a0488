"""The parts of `teacher=several`: which of its settings are teachers, and errors that name the part."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

from omegaconf import DictConfig, OmegaConf

from distilpose.cli.failures import causes
from distilpose.errors import DistilPoseError
from distilpose.teachers.base import Teacher


def check_parts(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of several teachers by name, if all are teachers.

    Args:
        settings: by name, a teacher, a function that makes it for data, or its settings with a `_target_`.

    Raises:
        DistilPoseError: one is no teacher or lacks a setting, or there are fewer than two.
    """
    others = {name: value for name, value in settings.items() if not _is_teacher(value)}
    for name, value in others.items():
        raise DistilPoseError(
            f"teacher.{name}={'null' if value is None else value} is no teacher, but teacher=several takes teachers by name: "
            f"give one by teacher@teacher.{name}=KIND, leave it out by ~teacher.{name}, or give a setting to one of them, such "
            "as teacher.first.least_trust=0.5."
        )
    if len(settings) < 2:
        raise DistilPoseError(
            f"teacher=several has {len(settings)} teacher(s): give two or more, such as teacher@teacher.first=onnx "
            "teacher@teacher.second=checkpoint."
        )
    for name, part in settings.items():
        for key in sorted(OmegaConf.missing_keys(part)) if isinstance(part, DictConfig) else []:
            raise DistilPoseError(
                f"teacher.{name}.{key} is not set: give teacher.{name}.{key}=…, see --help for what it takes."
            )
    return dict(settings)


def _is_teacher(value: Any) -> bool:
    return isinstance(value, (Teacher, partial)) or (isinstance(value, Mapping) and "_target_" in value)


@contextmanager
def of_part(name: str) -> Iterator[None]:
    """Errors name the part, and its settings as they are there: teacher.first.file=… for teacher.file=….

    Args:
        name: name of the part.
    """
    try:
        yield
    except Exception as error:
        own = next((cause for cause in causes(error) if isinstance(cause, DistilPoseError)), None)
        if own is None:
            raise
        text = re.sub(r"\bteacher\.(?=[\w.]+(=| is not set))", f"teacher.{name}.", str(own))
        raise DistilPoseError(text if f"teacher.{name}." in text else f"teacher.{name}: {text}") from own
