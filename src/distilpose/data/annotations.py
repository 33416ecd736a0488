"""A COCO keypoint file, read and checked once: its category's skeleton, its images, its persons."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from distilpose.errors import DistilPoseError
from distilpose.skeleton import Skeleton

# sets without outlines (Leeds Sports, CrowdPose, AI Challenger) take this share of the box for the person's area
AREA_OF_BOX = 0.53


class ImageRecord(NamedTuple):
    """An image of the annotation file: its name below the image folder and its size in pixels."""

    file_name: str
    width: int
    height: int


@dataclass(frozen=True)
class KeypointAnnotations:
    """What an annotation file says of one category.

    Attributes:
        path: the file.
        category_id: id of the category.
        skeleton: the category's joints.
        images: every image of the file by its id, with or without persons.
        annotation_ids: (M,) int64, persons that are no crowd and, unless the unlabelled were asked for, have at least one
            labelled joint, in order of file.
        image_ids: (M,) int64.
        boxes: (M, 4) x, y, width, height in image pixels, as they stand in the file.
        areas: (M,) square pixels; the file's, or `AREA_OF_BOX` of the box where there is none.
        keypoints: (M, K, 2) image pixels.
        labelled: (M, K) whether the joint is labelled, seen or hidden.
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
    """The content of a JSON file, or one sentence on why not, of `what` it is and the `way_out` where it is missing."""
    try:
        return json.loads(Path(path).read_bytes())
    except RecursionError:
        raise DistilPoseError(f"{what} {path} is nested too deeply to be read: download or write it again.") from None
    except FileNotFoundError:
        raise DistilPoseError(f"{what} {path} does not exist: {way_out}.") from None
    except OSError as error:
        raise DistilPoseError(f"{what} {path} cannot be read ({error.strerror}): {way_out}.") from None
    except ValueError as error:  # also bytes that are no text
        raise DistilPoseError(f"{what} {path} is not JSON ({error}): download or write it again.") from None


def load_annotations(
    path: str | Path,
    category: str | int | None = None,
    skeleton: Skeleton | Mapping[str, Any] | None = None,
    unlabelled: bool = False,
) -> KeypointAnnotations:
    """Read and check a COCO keypoint file.

    Args:
        path: the file.
        category: name or id of the category; may be left out if only one has keypoints.
        skeleton: `flip_pairs`, `sigmas` or `upper_body` to use in place of what the category implies, or a whole
            `Skeleton`.
        unlabelled: also keep persons without labelled joints; they need no 'keypoints'.

    Raises:
        DistilPoseError: if anything in it is missing, contradicts itself or is no number; the sentence names the place.
    """
    content = read_json(path, "Annotation file", "set data.root to the folder that holds it, or give its path")
    for key in ("images", "annotations", "categories"):
        if not isinstance(content, dict) or not isinstance(content.get(key), list):
            raise DistilPoseError(f"Annotation file {path} has no list {key!r}: expected COCO keypoint format.")
    chosen, known = _choose_category(content["categories"], category, path)
    bones = skeleton if isinstance(skeleton, Skeleton) else _skeleton_of(chosen, skeleton or {}, path)
    images = _read_images(content["images"], path)
    ids, image_ids, boxes, areas, joints = [], [], [], [], []
    for number, image_id, entry in _of_category(content["annotations"], chosen["id"], known, images, path):
        name = f"Annotation {number}"
        box = numbers(required(entry, "bbox", name, path), 4, f"'bbox' of annotation {number} in {path}")
        given = [0] * 3 * bones.num_keypoints if unlabelled and entry.get("keypoints") is None else None
        points = _joints(given or required(entry, "keypoints", name, path), bones, f"annotation {number} in {path}")
        (area,) = numbers(
            [entry.get("area", AREA_OF_BOX * box[2] * box[3])], 1, f"'area' of annotation {number} in {path}"
        )
        if not unlabelled and (entry.get("num_keypoints") == 0 or not (points[:, 2] > 0).any()):
            continue
        ids.append(number)
        image_ids.append(image_id)
        boxes.append(box)
        areas.append(area)
        joints.append(points)
    if not joints:
        raise DistilPoseError(
            f"Annotation file {path} holds no person of category {chosen['name']!r} with labelled keypoints "
            f"({len(content['annotations'])} annotations): check the file, choose another with data.category, or let a teacher "
            "teach persons without labels by data.unlabelled=true."
        )
    stacked = np.stack(joints)
    return KeypointAnnotations(
        path=Path(path),
        category_id=chosen["id"],
        skeleton=bones,
        images=images,
        annotation_ids=np.array(ids, dtype=np.int64),
        image_ids=np.array(image_ids, dtype=np.int64),
        boxes=np.stack(boxes),
        areas=np.array(areas),
        keypoints=stacked[..., :2].astype(np.float32),
        labelled=stacked[..., 2] > 0,
    )


def _choose_category(entries: list[Any], wanted: str | int | None, path: str | Path) -> tuple[dict[str, Any], set[int]]:
    """The category asked for by name or id (without that, the only one with keypoints), and the ids of all."""
    known = {required(entry, "id", f"Category {i}", path): entry for i, entry in enumerate(entries)}
    names = {number: str(required(entry, "name", f"Category {number}", path)) for number, entry in known.items()}
    if wanted is not None:
        found = [number for number, name in names.items() if str(wanted) in (name, str(number))]
    else:
        found = [number for number, entry in known.items() if entry.get("keypoints")]
    if len(found) == 1:
        return known[found[0]], set(known)
    asked = f"category {wanted!r}" if wanted is not None else "one category with 'keypoints'"
    present = ", ".join(f"{name} (id {number})" for number, name in names.items()) or "none"
    raise DistilPoseError(
        f"Annotation file {path} should hold exactly {asked}, but {len(found)} of its categories fit: "
        f"choose with data.category among {present}."
    )


def _skeleton_of(category: dict[str, Any], given: Mapping[str, Any], path: str | Path) -> Skeleton:
    """The category's skeleton with what the caller gave in place of what the names imply."""
    allowed = ["flip_pairs", "sigmas", "upper_body"]
    unknown = sorted(set(given) - set(allowed))
    if unknown:
        raise DistilPoseError(f"Skeleton options {unknown} are not known for {path}: use some of {allowed}.")
    try:
        return Skeleton.from_category(category, **given)
    except (TypeError, ValueError) as error:
        if isinstance(error, DistilPoseError):
            raise
        raise DistilPoseError(
            f"The category of {path} cannot be read ({error}): expected 'keypoints' as a list of names and 'skeleton' as "
            "pairs of joint numbers, counted from 1."
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


def _of_category(
    entries: list[Any], category: int, known: set[int], images: dict[int, ImageRecord], path: str | Path
) -> Iterator[tuple[int, int, dict[str, Any]]]:
    """Annotations of the category that are no crowds, with their id and image id; the ids of all are checked."""
    seen: set[int] = set()
    for position, entry in enumerate(entries):
        number = required(entry, "id", f"Annotation at position {position}", path)
        if number in seen:
            raise DistilPoseError(f"Annotation id {number} occurs twice in {path}: give every annotation its own id.")
        seen.add(number)
        image_id = required(entry, "image_id", f"Annotation {number}", path)
        if image_id not in images:
            raise DistilPoseError(
                f"Annotation {number} in {path} belongs to image {image_id}, which is not among its 'images': "
                "add the image or remove the annotation."
            )
        category_id = required(entry, "category_id", f"Annotation {number}", path)
        if category_id not in known:
            raise DistilPoseError(
                f"Annotation {number} in {path} is of category {category_id}, but 'categories' lists only "
                f"{sorted(known)}: add the category or correct the annotation."
            )
        if category_id == category and not entry.get("iscrowd", 0):
            yield number, image_id, entry


def _joints(values: Any, skeleton: Skeleton, where: str) -> NDArray[np.float64]:
    """(K, 3) x, y and visibility."""
    count = 3 * skeleton.num_keypoints
    if isinstance(values, list) and len(values) != count:
        raise DistilPoseError(
            f"The 'keypoints' of {where} has {len(values)} numbers, expected {count}: x, y and v for each of the "
            f"category's {skeleton.num_keypoints} joints."
        )
    return numbers(values, count, f"'keypoints' of {where}").reshape(-1, 3)


def required(entry: Any, key: str, name: str, path: str | Path) -> Any:
    """A field that must be there; ids must be whole numbers, because tensors carry them."""
    value = entry.get(key) if isinstance(entry, dict) else None
    if value is None:
        way_out = " (of persons without labels only with data.unlabelled=true)" if key == "keypoints" else ""
        raise DistilPoseError(f"{name} in {path} has no {key!r}, which COCO format requires{way_out}.")
    if key in ("id", "image_id", "category_id") and (type(value) is not int or abs(value) >= 2**63):
        raise DistilPoseError(f"{name} in {path} has {key!r} {value!r}, expected a whole number of at most 64 bits.")
    return value


def numbers(values: Any, count: int, where: str) -> NDArray[np.float64]:
    """A flat list of `count` finite numbers as an array; `where` names its place in the error."""
    try:
        array = np.asarray(values)
        if array.dtype.kind not in "iuf":  # "12" is no number: pycocotools would take it for text later
            raise TypeError
        array = array.astype(np.float64)
    except (TypeError, ValueError):
        raise DistilPoseError(f"The {where} is {values!r}, expected a list of {count} numbers.") from None
    if array.shape != (count,):
        raise DistilPoseError(f"The {where} has {array.size} numbers, expected {count}.")
    if not np.isfinite(array).all():
        position = int(np.flatnonzero(~np.isfinite(array))[0])
        raise DistilPoseError(
            f"The {where} holds {array[position]} at position {position}, expected only finite numbers: correct it."
        )
    return array
