"""A COCO keypoint file read without trusting it: what can be read becomes arrays, what cannot becomes findings."""

from __future__ import annotations

import contextlib
import json
import math
from array import array
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np
from numpy.typing import NDArray

from distilpose.curation.findings import Findings
from distilpose.errors import DistilPoseError
from distilpose.skeleton import Skeleton

_SHOWN = 5
FORMAT = "write it in COCO keypoint format (docs/data.md), or convert it by `python -m distilpose.dataset convert`"


@dataclass
class KeypointSet:
    """What a file says, as far as it can be read.

    Attributes:
        file: the annotation file.
        folder: of its images.
        skeleton: the category's joints.
        given: fields of the category that were there.
        image_ids: (I,) int64.
        names: I file names.
        sizes: (I, 2) width and height; NaN where not told.
        ids: (M,) int64 ids of the persons that are no crowd.
        images: (M,) places in the image list.
        boxes: (M, 4) x, y, width, height; NaN where there is none.
        areas: (M,) NaN where there is none.
        joints: (M, K, 3) x, y, v; NaN where they cannot be read.
        counts: (M,) num_keypoints; NaN where it is not told.
    """

    file: Path
    folder: Path
    skeleton: Skeleton
    given: frozenset[str]
    image_ids: NDArray[np.int64]
    names: list[str]
    sizes: NDArray[np.float64]
    ids: NDArray[np.int64]
    images: NDArray[np.int64]
    boxes: NDArray[np.float64]
    areas: NDArray[np.float64]
    joints: NDArray[np.float64]
    counts: NDArray[np.float64]

    @property
    def labelled(self) -> NDArray[np.bool_]:
        """(M, K) whether the joint is labelled, by the loader's rule."""
        return self.joints[..., 2] > 0


class _Tally:
    """Counts faults and keeps the first few places of each."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = defaultdict(int)
        self.places: dict[str, list[Any]] = defaultdict(list)

    def __call__(self, code: str, place: Any) -> None:
        self.counts[code] += 1
        if len(self.places[code]) < _SHOWN:
            self.places[code].append(place)


def read_set(file: Path, folder: Path, findings: Findings, category: str | None = None) -> KeypointSet | None:
    """Read a file and add what is wrong with its form; None where nothing can be checked further.

    Args:
        file: COCO keypoint file.
        folder: of its images.
        findings: gets what is wrong.
        category: name or id, where several have keypoints.
    """
    content = _content(file, findings)
    if content is None:
        return None
    missing = [key for key in ("images", "annotations", "categories") if not isinstance(content.get(key), list)]
    findings.add("error", "not-coco", missing, "Lists of the file are missing.", FORMAT + ".")
    if missing:
        return None
    chosen = _category(content["categories"], category, findings)
    if chosen is None:
        return None
    number, skeleton, given, known = chosen
    image_ids, names, sizes = _images(content["images"], findings)
    rows = _annotations(content["annotations"], number, known, skeleton.num_keypoints, image_ids, findings)
    return KeypointSet(file, folder, skeleton, given, image_ids, names, sizes, *rows)


def compact(entry: dict[str, Any]) -> dict[str, Any]:
    """A JSON object with its keypoints packed: a million persons then take a gigabyte and not three."""
    entry.pop("segmentation", None)
    values = entry.get("keypoints")
    if isinstance(values, list) and values:
        with contextlib.suppress(TypeError, OverflowError):  # names of a category, or a fault that is told later
            entry["keypoints"] = array("d", values)
    return entry


def _content(file: Path, findings: Findings) -> dict[str, Any] | None:
    try:
        with open(file, encoding="utf-8-sig") as stream:
            content = json.loads(stream.read(), object_hook=compact)
    except FileNotFoundError:
        raise DistilPoseError(f"Annotation file {file} does not exist: give the path of one.") from None
    except RecursionError:
        findings.add("error", "not-json", [file.name], "The file is nested too deeply to be read.", FORMAT + ".")
        return None
    except ValueError as error:  # also bytes that are no text
        told = f"The file is not JSON ({' '.join(str(error).split())[:120]})."
        findings.add("error", "not-json", [file.name], told, "Download or write it again.")
        return None
    if not isinstance(content, dict):
        findings.add("error", "not-coco", [file.name], f"The file holds a {type(content).__name__}.", FORMAT + ".")
        return None
    return content


def _category(
    entries: list[Any], wanted: str | None, findings: Findings
) -> tuple[int, Skeleton, frozenset[str], set[int]] | None:
    """Id, skeleton and given fields of the category, and the ids of all categories."""
    good = [entry for entry in entries if isinstance(entry, dict) and _is_id(entry.get("id")) and entry.get("name")]
    bad = [index for index, entry in enumerate(entries) if not any(entry is one for one in good)]
    way = "Give every category a whole number as 'id' and a 'name'."
    findings.add("error", "category-malformed", bad, "Categories lack 'id' or 'name', by their place in the list.", way)
    ids = [entry["id"] for entry in good]
    twice = sorted({number for number in ids if ids.count(number) > 1})
    findings.add("error", "category-id-twice", twice, "Category ids occur twice.", "Give every category its own id.")
    fits = [entry for entry in good if entry.get("keypoints")]
    if wanted is not None:
        fits = [entry for entry in good if wanted in (str(entry["name"]), str(entry["id"]))]
    names = [entry["name"] for entry in fits]
    if len(fits) > 1:
        findings.add("error", "several-categories", names, "Several categories have joints.", "Choose by --category.")
        return None
    if not fits or not fits[0].get("keypoints"):
        told = "No category lists 'keypoints'." if wanted is None else f"Category {wanted!r} lists no 'keypoints'."
        names = [entry["name"] for entry in good]
        findings.add("error", "no-keypoints", names, told, "List the joints' names there.", count=max(1, len(names)))
        return None
    entry = fits[0]
    given = frozenset(key for key in ("skeleton", "OKS_sigmas", "flip_pairs") if entry.get(key))
    try:
        if not isinstance(entry["keypoints"], list) or not all(isinstance(name, str) for name in entry["keypoints"]):
            raise TypeError("'keypoints' is no list of names")
        return entry["id"], Skeleton.from_category(entry), given, set(ids)
    except (TypeError, ValueError, OverflowError) as error:
        way = "Correct the category: names in 'keypoints', pairs counted from 1 in 'skeleton'."
        findings.add("error", "skeleton", [entry["name"]], f"The joints cannot be read ({error})", way)
        return None


def _images(entries: list[Any], findings: Findings) -> tuple[NDArray[np.int64], list[str], NDArray[np.float64]]:
    """Ids, names and sizes of the images that have an id and a name."""
    tally = _Tally()
    places: dict[int, int] = {}
    names: list[str] = []
    sizes: list[list[Any]] = []
    for position, entry in enumerate(entries):
        number = entry.get("id") if isinstance(entry, dict) else None
        if not _is_id(number):
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


def _annotations(
    entries: list[Any], category: int, known: set[int], joints: int, image_ids: NDArray[np.int64], findings: Findings
) -> tuple[NDArray[Any], ...]:
    """The arrays of `KeypointSet` from `ids` on. The list is emptied on the way, for memory."""
    tally, seen = _Tally(), set()
    places = {number: place for place, number in enumerate(image_ids.tolist())}
    count, kept = len(entries), 0
    ids, images = np.zeros(count, dtype=np.int64), np.zeros(count, dtype=np.int64)
    boxes, areas = np.full((count, 4), np.nan), np.full(count, np.nan)
    points, counts = np.full((count, 3 * joints), np.nan), np.full(count, np.nan)
    for position in range(count):
        entry, entries[position] = entries[position], None
        number = entry.get("id") if isinstance(entry, dict) else None
        if not _is_id(number):
            tally("annotation-id", f"place {position}")
            continue
        if number in seen:
            tally("annotation-id-twice", number)
        seen.add(number)
        image, kind = entry.get("image_id"), entry.get("category_id")
        if not _is_id(image) or image not in places:
            tally("dangling-image", number)
            continue
        if not _is_id(kind) or kind not in known:
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


def _is_id(value: Any) -> TypeGuard[int]:
    return type(value) is int and abs(value) < 2**63
