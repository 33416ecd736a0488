"""COCO keypoint files, read and checked once: skeleton of the category, images, persons."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from distilpose.data.units import area_of, check_pixels, is_crowd, log_label_notes
from distilpose.errors import NOT_THE_PATH, DistilPoseError
from distilpose.files import foreign_content
from distilpose.skeleton import Skeleton


class ImageRecord(NamedTuple):
    """An image of the annotation file: its path in the image folder and its size in pixels."""

    file_name: str
    width: int
    height: int


@dataclass(frozen=True)
class KeypointAnnotations:
    """The persons of one category of an annotation file.

    Attributes:
        path: the file.
        category_id: id of the category.
        skeleton: the category's joints.
        images: every image of the file by its id, with or without persons.
        annotation_ids: (M,) int64, in the order of the file. Crowds are left out, and so are persons without labelled
            joints unless `unlabelled` was set.
        image_ids: (M,) int64.
        boxes: (M, 4) x, y, width, height in image pixels, unchanged.
        areas: (M,) square pixels, see `distilpose.data.units.area_of`.
        keypoints: (M, K, 2) image pixels.
        labelled: (M, K) whether the joint is labelled, visible or occluded.
    """

    path: Path
    category_id: int
    skeleton: Skeleton
    images: dict[int, ImageRecord]
    annotation_ids: NDArray[np.int64]
    image_ids: NDArray[np.int64]
    boxes: NDArray[np.float64]
    areas: NDArray[np.float64]
    keypoints: NDArray[np.float32]
    labelled: NDArray[np.bool_]


def read_json(path: str | Path, what: str, way_out: str) -> Any:
    """Content of a JSON file.

    Args:
        path: the file.
        what: kind of file; error messages begin with it.
        way_out: what to do if the file is missing; the error message ends with it.

    Raises:
        DistilPoseError: the file is missing, cannot be read or is not JSON.
    """
    try:
        return json.loads(Path(path).read_bytes())
    except OSError as error:
        if error.errno in NOT_THE_PATH:
            raise
        missing = isinstance(error, FileNotFoundError)
        reason = "does not exist" if missing else f"cannot be read ({error.strerror})"
        raise DistilPoseError(f"{what} {path} {reason}: {way_out}.") from None
    except (ValueError, RecursionError) as error:  # also bytes that are not text, and endless nesting
        reason = foreign_content(path) or f"{error}: download or write it again"
        raise DistilPoseError(f"{what} {path} is not JSON: {reason}.") from None


def load_annotations(
    path: str | Path,
    category: str | int | None = None,
    skeleton: Skeleton | Mapping[str, Any] | None = None,
    unlabelled: bool = False,
) -> KeypointAnnotations:
    """Read and check a COCO keypoint file.

    Args:
        path: the file.
        category: name or id of the category. Not needed if only one category has keypoints.
        skeleton: `flip_pairs`, `sigmas` or `upper_body` that override what the category implies, or a `Skeleton`.
        unlabelled: also keep persons without labelled joints; they need no 'keypoints'.

    Raises:
        DistilPoseError: something in the file is missing, contradictory or not a number; the message names its place.
    """
    content = read_json(
        path,
        "Annotation file",
        "set data.root, or data.others.NAME.root in a mixture, to its folder (scripts/download_coco.py downloads COCO)",
    )
    for key in ("images", "annotations", "categories"):
        if not isinstance(content, dict) or not isinstance(content.get(key), list):
            raise DistilPoseError(f"Annotation file {path} has no list {key!r}: expected COCO keypoint format.")
    chosen = _choose_category(content["categories"], category, path)
    joints = skeleton if isinstance(skeleton, Skeleton) else _skeleton_of(chosen, skeleton or {}, path)
    no_keypoints = [0] * 3 * joints.num_keypoints
    images = _read_images(content["images"], path)
    ids, image_ids, boxes, areas, keypoints, entries = [], [], [], [], [], []
    for number, image_id, entry in _annotations_of(content["annotations"], chosen["id"], images, path):
        name, where = f"Annotation {number}", f"of annotation {number} in {path}"
        box = numbers(required(entry, "bbox", name, path), 4, f"'bbox' {where}")
        flat = no_keypoints
        if not unlabelled or entry.get("keypoints") is not None:
            flat = required(entry, "keypoints", name, path)
        points = numbers(flat, len(no_keypoints), f"'keypoints' {where}").reshape(-1, 3)
        (area,) = numbers([area_of(entry)], 1, f"'area' {where}")
        if not unlabelled and not (points[:, 2] > 0).any():
            continue
        entries.append(entry)
        ids.append(number)
        image_ids.append(image_id)
        boxes.append(box)
        areas.append(area)
        keypoints.append(points)
    if not keypoints:
        raise DistilPoseError(
            f"Annotation file {path} has no person of category {chosen['name']!r} with labelled keypoints "
            f"({len(content['annotations'])} annotations): check the file, give another data.category, or use persons "
            "without labels by data.unlabelled=true."
        )
    stacked = np.stack(keypoints)
    check_pixels(stacked[stacked[..., 2] > 0, :2], f"Annotation file {path}", "keypoints", "x and y")
    log_label_notes(entries, stacked, path)
    return KeypointAnnotations(
        path=Path(path),
        category_id=chosen["id"],
        skeleton=joints,
        images=images,
        annotation_ids=np.array(ids, dtype=np.int64),
        image_ids=np.array(image_ids, dtype=np.int64),
        boxes=np.stack(boxes),
        areas=np.array(areas),
        keypoints=stacked[..., :2].astype(np.float32),
        labelled=stacked[..., 2] > 0,
    )


def _choose_category(entries: list[Any], wanted: str | int | None, path: str | Path) -> dict[str, Any]:
    """The category of that name or id, by default the only one with keypoints."""
    known: dict[int, dict[str, Any]] = {}
    for position, entry in enumerate(entries):
        number = required(entry, "id", f"Category {position}", path)
        if known.setdefault(number, entry) != entry:  # files put together repeat it
            raise DistilPoseError(f"Category id {number} has two contents in {path}: give every category its own id.")
    names = {number: str(required(entry, "name", f"Category {number}", path)) for number, entry in known.items()}
    if wanted is not None:
        # a number is an id first, and a text a name first: a category may be named after another's id
        by_name = [number for number, name in names.items() if str(wanted) == name]
        by_id = [number for number in names if str(wanted) == str(number)]
        matches = (by_id or by_name) if isinstance(wanted, int) else (by_name or by_id)
    else:
        matches = [number for number, entry in known.items() if entry.get("keypoints")]
    if len(matches) == 1:
        return known[matches[0]]
    expected = f"category {wanted!r}" if wanted is not None else "one category with 'keypoints'"
    present = ", ".join(f"{name} (id {number})" for number, name in names.items()) or "none"
    raise DistilPoseError(
        f"Annotation file {path} must have exactly {expected}, but {len(matches)} of its categories match: "
        f"give data.category, one of {present}."
    )


def _skeleton_of(category: dict[str, Any], overrides: Mapping[str, Any], path: str | Path) -> Skeleton:
    """The category's skeleton with the overrides of the caller."""
    try:
        return Skeleton.from_category(category, **overrides)
    except DistilPoseError:
        raise
    except (TypeError, ValueError) as error:
        raise DistilPoseError(
            f"The category of {path} cannot be read ({error}): expected 'keypoints' as a list of names and 'skeleton' as "
            "pairs of joint numbers, counted from 1; data.skeleton takes flip_pairs, sigmas and upper_body."
        ) from error


def _read_images(entries: list[Any], path: str | Path) -> dict[int, ImageRecord]:
    """Image records by id, which must be unique."""
    images: dict[int, ImageRecord] = {}
    for position, entry in enumerate(entries):
        number = required(entry, "id", f"Image at position {position}", path)
        if number in images:
            raise DistilPoseError(f"Image id {number} occurs twice in {path}: give every image its own id.")
        name = str(required(entry, "file_name", f"Image {number}", path))
        sides = [required(entry, key, f"Image {number}", path) for key in ("width", "height")]
        width, height = numbers(sides, 2, f"size of image {number} in {path}").tolist()
        images[number] = ImageRecord(name, int(width), int(height))
    return images


def _annotations_of(
    entries: list[Any], category: int, images: dict[int, ImageRecord], path: str | Path
) -> Iterator[tuple[int, int, dict[str, Any]]]:
    """Id, image id and content of the category's annotations, without crowds. The ids of all annotations are checked."""
    seen: set[int] = set()
    for position, entry in enumerate(entries):
        number = required(entry, "id", f"Annotation at position {position}", path)
        if number in seen:
            raise DistilPoseError(f"Annotation id {number} occurs twice in {path}: give every annotation its own id.")
        seen.add(number)
        image_id = required(entry, "image_id", f"Annotation {number}", path)
        if image_id not in images:
            raise DistilPoseError(
                f"Annotation {number} in {path} has image_id {image_id}, which its 'images' do not list: "
                "add the image or remove the annotation."
            )
        category_id = required(entry, "category_id", f"Annotation {number}", path)
        if category_id == category and not is_crowd(entry):
            yield number, image_id, entry


def required(entry: Any, key: str, name: str, path: str | Path) -> Any:
    """A required field. Ids must be 64-bit integers, because tensors carry them."""
    value = entry.get(key) if isinstance(entry, dict) else None
    if value is None:
        optional = " (optional only with data.unlabelled=true)" if key == "keypoints" else ""
        raise DistilPoseError(f"{name} in {path} has no {key!r}, which COCO format requires{optional}.")
    if key in ("id", "image_id", "category_id") and (type(value) is not int or abs(value) >= 2**63):
        raise DistilPoseError(f"{name} in {path} has {key!r} {value!r}, expected a whole number of at most 64 bits.")
    return value


def numbers(values: Any, count: int, where: str) -> NDArray[np.float64]:
    """A flat list of `count` finite numbers as an array; `where` names its place in the error message."""
    try:
        array = np.asarray(values)
    except (ValueError, OverflowError):  # lists of unequal length, an integer beyond all floats
        array = np.empty(0)
    # text such as "12" is not a number: pycocotools would fail on it later
    size = array.size if array.dtype.kind in "iuf" and array.ndim == 1 else 0
    if size != count or not np.isfinite(array).all():
        raise DistilPoseError(
            f"The {where} has {size} numbers, expected {count} finite ones in a flat list: it is {str(values)[:80]}."
        )
    return array.astype(np.float64)
