"""Parsing of files from strangers: every fault of a file becomes one error message that names it."""

from __future__ import annotations

import contextlib
import json
from array import array
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeGuard

from pydantic import TypeAdapter, ValidationError

from distilpose.errors import DistilPoseError
from distilpose.skeleton import Skeleton

MOST_JOINTS = 1000  # a person of whole-body sets has 133; more than that in a small file asks for gigabytes
_LONGEST = 120  # characters of another library's message


@contextlib.contextmanager
def parsing(path: Path, kind: str) -> Iterator[None]:
    """Turn whatever a parser raises in the block into one error message.

    Parsers of damaged files fail in any way, so that every exception counts, also a `RecursionError` of deep nesting.

    Args:
        path: file that is parsed.
        kind: what it is expected to be, such as "a JSON file".

    Raises:
        DistilPoseError: the block failed.
    """
    try:
        yield
    except DistilPoseError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split())[:_LONGEST] or type(error).__name__
        raise DistilPoseError(f"{path} cannot be read as {kind} ({reason}): export or download it again.") from None


def read_json(path: Path) -> Any:
    """Content of a JSON file, with packed keypoints and without segmentations."""
    with parsing(path, "a JSON file"):
        return json.loads(path.read_text(encoding="utf-8-sig"), object_hook=_pack)


def _pack(entry: dict[str, Any]) -> dict[str, Any]:
    """A JSON object with its keypoints as an array: a million persons then take one gigabyte instead of three."""
    entry.pop("segmentation", None)
    values = entry.get("keypoints")
    if isinstance(values, list) and values:
        with contextlib.suppress(TypeError, OverflowError):  # names of a category, or faults that are reported later
            entry["keypoints"] = array("d", values)
    return entry


def validated(declared: Any, content: Any, path: Path) -> Any:
    """Content of a file as a declared type.

    Args:
        declared: a pydantic model or any annotation.
        content: what was parsed.
        path: file, for the message.

    Raises:
        DistilPoseError: the content has another form; the message has the place, what is expected and what is there.
    """
    try:
        return TypeAdapter(declared).validate_python(content)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        place = ".".join(map(str, first["loc"])) or "content"
        given = str(error).partition("input_value=")[2].partition(", input_type=")[0]  # shortened, and safe to print
        problem = f"no '{place}'" if first["type"] == "missing" else f"{place}={given}: {first['msg']}"
        raise DistilPoseError(f"{path} has {problem}. Correct it, or check that it is of this format.") from None


def skeleton_of(category: Mapping[str, Any], path: Path) -> Skeleton:
    """Skeleton of a COCO category from a file.

    Raises:
        DistilPoseError: names, limbs, pairs or sigmas do not fit together.
    """
    try:
        return Skeleton.from_category(category)
    except (TypeError, ValueError, OverflowError) as error:
        raise DistilPoseError(f"The joints of {path} cannot be used: {error}") from None


def is_id(value: Any) -> TypeGuard[int]:
    """Whether a value is a whole number that a tensor can hold."""
    return type(value) is int and abs(value) < 2**63
