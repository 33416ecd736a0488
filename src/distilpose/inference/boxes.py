"""Boxes of persons, and the files that hold them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from distilpose.data.annotations import numbers, read_json
from distilpose.errors import DistilPoseError

Key = TypeVar("Key", Path, int)


class Boxes(NamedTuple):
    """Persons on one image.

    Attributes:
        boxes: (N, 4) x, y, width, height in image pixels.
        scores: (N,).
    """

    boxes: NDArray[np.float64]
    scores: NDArray[np.float64]


NO_BOXES = Boxes(np.zeros((0, 4)), np.zeros(0))


def read_boxes(
    path: str | Path, ids: Mapping[Path, int], category_id: int, threshold: float = 0.0
) -> tuple[dict[Path, Boxes], Mapping[Path, int]]:
    """The boxes of the images, from a COCO annotation file or a detector's list.

    Rows of other images or of another category, crowds, and boxes below the threshold are skipped. Boxes without size are kept:
    `distilpose.data.geometry.on_image` finds them.

    Args:
        path: COCO annotation file, or a list of {image_id or file_name, bbox, score (1 if absent), category_id (any if
            absent)}.
        ids: the images and their numbers.
        category_id: category of persons.
        threshold: lowest score of a box.

    Returns:
        The boxes of each image that has any, and the numbers of the images: those in the file if it is an annotation file.

    Raises:
        DistilPoseError: the file is malformed, or has no box for any of the images.
    """
    content = _read(path)
    by_name = {image.name: image for image in ids}
    by_id: dict[Any, Path] = {number: image for image, number in ids.items()}
    if isinstance(content, dict):
        by_id = _listed_images(content, ids, path)
        ids = {**ids, **{image: number for number, image in by_id.items()}}
        by_name = {}
    rows_by_key: dict[Path, list[list[float]]] = {}
    for row, box in _persons(content, path, category_id, threshold):
        image = by_name.get(Path(str(row.get("file_name"))).name) or by_id.get(row.get("image_id"))
        if image is not None:
            rows_by_key.setdefault(image, []).append(box)
    return _tables(rows_by_key, path, category_id, f"the {len(ids)} image(s) (first {next(iter(ids)).name})"), ids


def read_frame_boxes(path: str | Path, category_id: int, threshold: float = 0.0) -> dict[int, Boxes]:
    """The boxes of the frames of a video: a file as for `read_boxes`, whose image_id is the frame's number, from 0.

    Raises:
        DistilPoseError: the file is malformed, or has no box.
    """
    rows_by_key: dict[int, list[list[float]]] = {}
    for row, box in _persons(_read(path), path, category_id, threshold):
        if isinstance(row.get("image_id"), int):
            rows_by_key.setdefault(row["image_id"], []).append(box)
    return _tables(rows_by_key, path, category_id, "the video's frames (whose number is the image_id)")


def _read(path: str | Path) -> Any:
    content = read_json(path, "Box file", "give it with boxes=FILE, or leave boxes out to use detector=…")
    if not isinstance(content.get("annotations") if isinstance(content, dict) else content, list):
        raise DistilPoseError(
            f"Box file {path} must be a COCO annotation file (an object with 'annotations') or a list of "
            "{image_id, bbox, score}."
        )
    return content


def _listed_images(content: dict[str, Any], ids: Mapping[Path, int], path: str | Path) -> dict[Any, Path]:
    """The images that an annotation file lists, by their numbers there."""
    entries = [entry for entry in content.get("images") or () if isinstance(entry, dict)]
    listed = {Path(str(entry.get("file_name"))).name: entry.get("id") for entry in entries}
    new_ids = {image: listed[image.name] for image in ids if listed.get(image.name) is not None}
    for image, number in new_ids.items():
        if not isinstance(number, int) or not -(2**63) <= number < 2**63:
            raise DistilPoseError(
                f"Box file {path} gives {image.name} the id {number!r}: expected a whole number of 64 bits, as in COCO's files."
            )
    return {number: image for image, number in new_ids.items()}


def _persons(
    content: Any, path: str | Path, category_id: int, threshold: float
) -> Iterator[tuple[dict[str, Any], list[float]]]:
    """Rows of persons, each with x, y, width, height and score.

    Raises:
        DistilPoseError: a row has no box, or does not name its image.
    """
    for index, row in enumerate(content["annotations"] if isinstance(content, dict) else content):
        named = isinstance(row, dict) and "bbox" in row and ("image_id" in row or "file_name" in row)
        if not named or not isinstance(row.get("image_id"), (int, str, type(None))):
            raise DistilPoseError(
                f"Row {index} of box file {path} must have 'bbox', and 'image_id' (a number) or 'file_name': {str(row)[:80]}"
            )
        box = numbers(row["bbox"], 4, f"'bbox' of row {index} in {path}").tolist()
        (score,) = numbers([row.get("score", 1.0)], 1, f"'score' of row {index} in {path}").tolist()
        is_person = row.get("category_id", category_id) == category_id and not row.get("iscrowd", 0)
        if is_person and score >= threshold:
            yield row, [*box, score]


def _tables(
    rows_by_key: dict[Key, list[list[float]]], path: str | Path, category_id: int, wanted: str
) -> dict[Key, Boxes]:
    """The boxes and scores of each image as arrays; an error if no image has any."""
    if not rows_by_key:
        raise DistilPoseError(
            f"Box file {path} has no box of category {category_id} for any of {wanted}: check that it belongs to them."
        )
    tables = {key: np.array(rows) for key, rows in rows_by_key.items()}
    return {key: Boxes(table[:, :4], table[:, 4]) for key, table in tables.items()}
