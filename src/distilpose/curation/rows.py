"""The images and persons of a file that is not trusted, as arrays, with what cannot be read counted."""

from __future__ import annotations

import math
from array import array
from collections import defaultdict
from typing import Any, TypeGuard

import numpy as np
from numpy.typing import NDArray

from distilpose.curation.findings import Findings

_SHOWN = 5


class _Tally:
    """Counts faults and keeps the first few places of each."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = defaultdict(int)
        self.places: dict[str, list[Any]] = defaultdict(list)

    def __call__(self, code: str, place: Any) -> None:
        self.counts[code] += 1
        if len(self.places[code]) < _SHOWN:
            self.places[code].append(place)


def read_images(entries: list[Any], findings: Findings) -> tuple[NDArray[np.int64], list[str], NDArray[np.float64]]:
    """Ids, names and sizes of the images that have an id and a name."""
    tally = _Tally()
    places: dict[int, int] = {}
    names: list[str] = []
    sizes: list[list[Any]] = []
    for position, entry in enumerate(entries):
        number = entry.get("id") if isinstance(entry, dict) else None
        if not is_id(number):
            tally("image-id", f"place {position}")
        elif number in places:
            tally("image-id-twice", number)
        elif not isinstance(entry.get("file_name"), str) or not entry["file_name"].strip():
            tally("image-name", number)
        else:
            places[number] = len(names)
            names.append(entry["file_name"])
            size = [entry.get(side) for side in ("width", "height")]
            good = all(_is_number(side) and 1 <= side < 1e6 for side in size)
            if not good:
                tally("image-no-size", number)
            sizes.append(size if good else [np.nan, np.nan])
    told = {
        "image-id": ("Images have no whole number as 'id'.", "Give every image its own id."),
        "image-id-twice": ("Image ids occur twice; later ones are passed over.", "Give every image its own id."),
        "image-name": ("Images have no 'file_name'.", "Add it, relative to the image folder."),
        "image-no-size": ("Images lack 'width' and 'height' in pixels.", "Add them."),
    }
    for code, count in tally.counts.items():
        findings.add("error", code, tally.places[code], *told[code], count=count)
    shape = np.array(sizes, dtype=np.float64).reshape(-1, 2)
    return np.fromiter(places, dtype=np.int64, count=len(places)), names, shape


def read_annotations(
    entries: list[Any], category: int, known: set[int], joints: int, image_ids: NDArray[np.int64], findings: Findings
) -> tuple[NDArray[Any], ...]:
    """The arrays of `KeypointSet` from `ids` on. The list is emptied on the way, for memory."""
    tally, seen = _Tally(), set()
    places = {number: place for place, number in enumerate(image_ids.tolist())}
    kept, count = 0, sum(isinstance(entry, dict) and entry.get("category_id") == category for entry in entries)
    ids, images = np.zeros(count, dtype=np.int64), np.zeros(count, dtype=np.int64)
    boxes, areas = np.full((count, 4), np.nan), np.full(count, np.nan)
    points, counts = np.full((count, 3 * joints), np.nan), np.full(count, np.nan)
    for position in range(len(entries)):
        entry, entries[position] = entries[position], None
        number = entry.get("id") if isinstance(entry, dict) else None
        if not is_id(number):
            tally("annotation-id", f"place {position}")
            continue
        if number in seen:
            tally("annotation-id-twice", number)
        seen.add(number)
        image, kind = entry.get("image_id"), entry.get("category_id")
        if not is_id(image) or image not in places:
            tally("dangling-image", number)
            continue
        if not is_id(kind) or kind not in known:
            tally("dangling-category", number)
            continue
        if kind != category or entry.get("iscrowd"):
            continue
        ids[kept], images[kept] = number, places[image]
        _fill(boxes[kept], entry.get("bbox"), "box", number, tally)
        _fill(points[kept], entry.get("keypoints"), "keypoints", number, tally)
        for key, row in (("area", areas), ("num_keypoints", counts)):
            if key in entry:
                _fill(row[kept : kept + 1], [entry[key]], key, number, tally)
        kept += 1
    for code, found in tally.counts.items():
        findings.add("error", code, tally.places[code], *_TOLD[code], count=found)
    taken = slice(kept)
    return ids[taken], images[taken], boxes[taken], areas[taken], points[taken].reshape(kept, joints, 3), counts[taken]


_SHAPE = "Write x, y and v for each of the category's joints."
_TOLD = {
    "not-finite": ("Boxes, areas or joints are not finite (NaN or infinity).", "Correct these annotations."),
    "annotation-id": ("Annotations have no whole number as 'id'.", "Give every annotation its own id."),
    "annotation-id-twice": ("Annotation ids occur twice.", "Give every annotation its own id."),
    "dangling-image": ("Annotations belong to images that are not in the file.", "Add the images or remove them."),
    "dangling-category": (
        "Annotations are of categories that are not in the file.",
        "Add the category or correct them.",
    ),
    "box-missing": ("Persons have no 'bbox'.", "Add x, y, width and height in pixels."),
    "box-malformed": ("Boxes are not four numbers.", "Write x, y, width and height in pixels."),
    "keypoints-missing": ("Persons have no 'keypoints'.", "Label them, or train with data.unlabelled=true."),
    "keypoints-length": ("Lists of 'keypoints' have a wrong length.", _SHAPE),
    "keypoints-malformed": ("Lists of 'keypoints' hold something that is no number.", _SHAPE),
    "area-malformed": ("Areas are no numbers.", "Write square pixels, or leave 'area' out."),
    "num_keypoints-malformed": (
        "'num_keypoints' is no number.",
        "Write how many joints are labelled, or leave it out.",
    ),
}


def _fill(row: NDArray[np.float64], values: Any, what: str, number: int, tally: _Tally) -> None:
    """Put a list of numbers into its row, or tell why not."""
    if values is None:
        tally(f"{what}-missing", number)
        return
    if isinstance(values, (list, array)) and len(values) != len(row) and what == "keypoints":
        tally("keypoints-length", number)
        return
    packed = isinstance(values, array)
    if not packed and (not isinstance(values, list) or len(values) != len(row) or not all(map(_is_number, values))):
        tally(f"{what}-malformed", number)
    elif not math.isfinite(sum(values)):
        tally("not-finite", number)
    else:
        row[:] = values


def _is_number(value: Any) -> bool:
    return type(value) is float or (type(value) is int and abs(value) < 1e300)


def is_id(value: Any) -> TypeGuard[int]:
    """Whether it is a whole number that a tensor can carry."""
    return type(value) is int and abs(value) < 2**63
