"""The metadata in an ONNX file written by `python -m distilpose.export`, as readers of such a file check it."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from distilpose.errors import DistilPoseError
from distilpose.skeleton import Skeleton

METADATA_KEY = "distilpose"
FORMAT = 1
_MAX_SIDE = 4096  # pixels of a crop; a malicious file could request more memory than available


def parse_metadata(text: str | None, file: str | Path) -> dict[str, Any]:
    """Parse and check the metadata of an exported file.

    Raises:
        DistilPoseError: the metadata is missing or malformed.
    """
    if text is None:
        raise DistilPoseError(
            f"{file} has no metadata of distilpose: give a file written by python -m distilpose.export."
        )
    try:
        about = json.loads(text)
        if about["format"] != FORMAT:
            raise ValueError(f"format {about['format']}, this version reads {FORMAT}")
        size, numbers = about["input_size"], [*about["mean"], *about["std"], about["padding"]]
        good = len(size) == 2 and all(type(side) is int and 0 < side <= _MAX_SIDE for side in size)
        good = (
            good and len(about["mean"]) == len(about["std"]) == 3 and all(math.isfinite(number) for number in numbers)
        )
        good = good and all(number > 0 for number in [*about["std"], about["padding"]])
        if not good or about["kind"] not in ("student", "teacher") or not isinstance(about["normalise"], bool):
            raise ValueError("a value is out of its range")
        Skeleton.from_dict(about["skeleton"])
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise DistilPoseError(f"{file} has malformed metadata ({error}): export it again.") from None
    return about
