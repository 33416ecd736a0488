"""The teachers of a run in words, read from its settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, get_args

from distilpose.losses.term_names import LABELS_ONLY, Term
from distilpose.runs.config import below

# by the name of what makes it; the others are load_KIND
KINDS = {"load_teacher": "checkpoint", "LabelTeacher": "labels"}
# the setting that says which teacher of a kind it is
NAMING = ("checkpoint", "name", "target", "file")


class TeacherName(NamedTuple):
    """A teacher by its settings.

    Attributes:
        kind: such as vitpose.
        which: its file, folder or name; "" for a kind that has none.
    """

    kind: str
    which: str


def teacher_names(config: Mapping[str, Any], group: str = "teacher") -> list[TeacherName]:
    """The teachers of a run: each part of several, and none for one whose file or name is not set.

    Args:
        config: flattened settings.
        group: dotted key of the teacher's settings.
    """
    settings = below(config, group)
    loader = str(settings.get("_target_", "load_teacher")).rpartition(".")[2]
    if loader == "load_several":
        parts = dict.fromkeys(key.partition(".")[0] for key in settings if "." in key)
        return [name for part in parts for name in teacher_names(config, f"{group}.{part}")]
    which = next((str(settings[name]) for name in NAMING if settings.get(name) not in (None, "???")), "")
    kind = KINDS.get(loader, loader.removeprefix("load_"))
    return [TeacherName(kind, which)] if which or kind == "labels" else []


def uses_teacher(config: Mapping[str, Any]) -> bool:
    """Whether the loss of flattened settings has a term that needs a teacher; True for a loss without such settings."""
    weights = [
        config[f"loss.{term}"] for term in get_args(Term) if f"loss.{term}" in config and term not in LABELS_ONLY
    ]
    return any(weights) or not weights
