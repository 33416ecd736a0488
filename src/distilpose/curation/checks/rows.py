"""Images and persons of an untrusted file as arrays; rows that cannot be read are counted."""

from __future__ import annotations

import math
from array import array
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distilpose.curation.checks.findings import Findings, Tally
from distilpose.curation.parsing import is_id
from distilpose.data.units import is_crowd


def read_images(entries: list[Any], findings: Findings) -> tuple[NDArray[np.int64], list[str], NDArray[np.float64]]:
    """Ids, names and sizes of the images that have an id and a name."""
    tally = Tally()
    names: dict[int, str] = {}
    sizes: list[list[Any]] = []
    for position, entry in enumerate(entries):
        number = entry.get("id") if isinstance(entry, dict) else None
        if not is_id(number):
            tally.add("image-id", f"place {position}")
        elif number in names:
            tally.add("image-id-twice", number)
        elif not isinstance(entry.get("file_name"), str) or not entry["file_name"].strip():
            tally.add("image-name", number)
        else:
            names[number] = entry["file_name"]
            size = [entry.get(side) for side in ("width", "height")]
            if not all(_is_number(side) and 1 <= side < 1e6 for side in size):
                tally.add("image-no-size", number)
                size = [np.nan, np.nan]
            sizes.append(size)
    findings.add_all(tally)
    return np.array([*names], dtype=np.int64), [*names.values()], np.array(sizes, dtype=np.float64).reshape(-1, 2)


def read_annotations(
    entries: list[Any], category: int, known: set[int], joints: int, image_ids: NDArray[np.int64], findings: Findings
) -> tuple[NDArray[Any], ...]:
    """The arrays of `KeypointSet`, from `ids` to `counts`. The list `entries` is emptied, to save memory."""
    tally, ids_seen = Tally(), set()
    indices = {number: index for index, number in enumerate(image_ids.tolist())}
    kept, count = 0, sum(isinstance(entry, dict) and entry.get("category_id") == category for entry in entries)
    ids, images = np.zeros((2, count), dtype=np.int64)
    boxes, areas, counts = np.full((count, 4), np.nan), np.full((count, 1), np.nan), np.full((count, 1), np.nan)
    points = np.full((count, 3 * joints), np.nan)
    for position in range(len(entries)):
        entry, entries[position] = entries[position], None
        number = entry.get("id") if isinstance(entry, dict) else None
        if not is_id(number):
            tally.add("annotation-id", f"place {position}")
            continue
        if number in ids_seen:
            tally.add("annotation-id-twice", number)
        ids_seen.add(number)
        image, kind = entry.get("image_id"), entry.get("category_id")
        if not is_id(image) or image not in indices:
            tally.add("dangling-image", number)
        elif not is_id(kind) or kind not in known:
            tally.add("dangling-category", number)
        elif kind == category and not is_crowd(entry):
            ids[kept], images[kept] = number, indices[image]
            _fill(boxes[kept], entry.get("bbox"), "box", number, tally)
            _fill(points[kept], entry.get("keypoints"), "keypoints", number, tally)
            for key, row in (("area", areas), ("num_keypoints", counts)):
                if entry.get(key) is not None:
                    _fill(row[kept], [entry[key]], key, number, tally)
            kept += 1
    findings.add_all(tally)
    rows = slice(kept)
    return ids[rows], images[rows], boxes[rows], areas[rows, 0], points[rows].reshape(kept, joints, 3), counts[rows, 0]


def _fill(row: NDArray[np.float64], values: Any, what: str, number: int, tally: Tally) -> None:
    """Write a list of numbers into its row, or count the reason why it is invalid."""
    is_packed = isinstance(values, array)
    if values is None:
        tally.add(f"{what}-missing", number)
    elif what == "keypoints" and isinstance(values, (list, array)) and len(values) != len(row):
        tally.add("keypoints-length", number)
    elif not is_packed and not (isinstance(values, list) and len(values) == len(row) and all(map(_is_number, values))):
        tally.add(f"{what}-malformed", number)
    elif not math.isfinite(sum(values)):
        tally.add("not-finite", number)
    else:
        row[:] = values


def _is_number(value: Any) -> bool:
    return type(value) is float or (type(value) is int and abs(value) < 1e300)
