"""Parsing of untrusted files: every problem of a file becomes one error message that names the file."""

from __future__ import annotations

import contextlib
import json
from array import array
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeGuard

from pydantic import TypeAdapter, ValidationError

from distilpose.errors import DistilPoseError
from distilpose.files import foreign_content
from distilpose.skeleton import Skeleton

MAX_JOINTS = 1000  # whole-body sets have 133; a small file with far more would need gigabytes of memory
_MAX_REASON = 120  # characters kept of another library's message


@contextlib.contextmanager
def parsing(path: Path, kind: str) -> Iterator[None]:
    """Turn whatever a parser raises in the block into one error message.

    On damaged files parsers raise exceptions of any type, such as a `RecursionError` for deep nesting. All are converted.

    Args:
        path: the file.
        kind: expected kind of file, such as "a JSON file".

    Raises:
        DistilPoseError: the block failed.
    """
    try:
        yield
    except DistilPoseError:
        raise
    except Exception as error:
        if foreign := foreign_content(path):
            raise DistilPoseError(f"{path} cannot be read as {kind}: {foreign}.") from None
        reason = " ".join(str(error).split())[:_MAX_REASON] or type(error).__name__
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
        with contextlib.suppress(TypeError, OverflowError):  # names of a category, or problems that are reported later
            entry["keypoints"] = array("d", values)
    return entry


def validated(declared: Any, content: Any, path: Path) -> Any:
    """Parsed content of a file, validated as a declared type.

    Args:
        declared: a pydantic model or any annotation.
        content: the parsed content.
        path: file, for the message.

    Raises:
        DistilPoseError: the content is invalid; the message has the place, the value and what is expected.
    """
    try:
        return TypeAdapter(declared).validate_python(content)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        place = ".".join(map(str, first["loc"])) or "content"
        value = str(error).partition("input_value=")[2].partition(", input_type=")[0]  # shortened, and safe to print
        problem = f"no '{place}'" if first["type"] == "missing" else f"{place}={value}: {first['msg']}"
        raise DistilPoseError(f"{path} has {problem}. Correct it, or check that the file has this format.") from None


def skeleton_of(category: Mapping[str, Any], path: Path) -> Skeleton:
    """Skeleton of a COCO category from a file.

    Raises:
        DistilPoseError: names, limbs, pairs or sigmas are invalid.
    """
    try:
        return Skeleton.from_category(category)
    except (TypeError, ValueError, OverflowError) as error:
        raise DistilPoseError(f"The joints of {path} cannot be used: {error}") from None


def is_id(value: Any) -> TypeGuard[int]:
    """Whether a value is a whole number that a tensor can hold."""
    return type(value) is int and abs(value) < 2**63
