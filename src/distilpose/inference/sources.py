"""What to predict on: the images of a source, and the boxes of the persons on them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from distilpose.data.annotations import numbers, read_json
from distilpose.errors import DistilPoseError

Key = TypeVar("Key", Path, int)
SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")


class Boxes(NamedTuple):
    """Persons on one image.

    Attributes:
        boxes: (N, 4) x, y, width, height in image pixels; None takes the whole image as one person.
        scores: (N,); None counts as 1.
    """

    boxes: NDArray[np.float64] | None
    scores: NDArray[np.float64] | None


def find_images(source: str | Path) -> list[Path]:
    """The image, or the images directly in the folder, by name.

    Raises:
        DistilPoseError: there is none.
    """
    source = Path(source)
    if source.is_file():
        return [source]
    if not source.is_dir():
        raise DistilPoseError(f"'{source}' is neither an image nor a folder: give one that exists.")
    found = sorted(path for path in source.iterdir() if path.suffix.lower() in SUFFIXES and path.name[0] != ".")
    if not found:
        raise DistilPoseError(
            f"'{source}' holds no image: expected files directly in it that end in {', '.join(SUFFIXES)}."
        )
    return found


def image_ids(images: Sequence[Path]) -> dict[Path, int]:
    """COCO's numbers where all file names are such (000000000785.jpg is 785), else 1, 2, … in order."""
    named = [int(path.stem) for path in images if path.stem.isascii() and path.stem.isdigit() and len(path.stem) < 19]
    ids = named if len(set(named)) == len(images) else range(1, len(images) + 1)
    return dict(zip(images, ids, strict=True))


def read_boxes(
    path: str | Path, ids: dict[Path, int], category_id: int, threshold: float = 0.0
) -> tuple[dict[Path, Boxes], dict[Path, int]]:
    """The boxes of the images, from a COCO annotation file or a detector's list.

    Rows for other images or of another category, crowds, and boxes below the threshold are passed over. Boxes without size are
    among those given, for `distilpose.data.geometry.on_image` to tell.

    Args:
        path: COCO annotation file, or a list of {image_id or file_name, bbox, score (1 if absent), category_id (any if
            absent)}.
        ids: the images and their numbers.
        category_id: the persons' category.
        threshold: lowest score of a box.

    Returns:
        The boxes of each image that has any, and the images' numbers: an annotation file has its own.

    Raises:
        DistilPoseError: the file is not such a file, or has no box for any of the images.
    """
    content = read_json(
        path, "Box file", "give it with boxes=FILE, or leave boxes out to take each image as one person"
    )
    rows = content.get("annotations") if isinstance(content, dict) else content
    if not isinstance(rows, list):
        raise DistilPoseError(
            f"Box file {path} is neither a COCO annotation file nor a list of boxes: expected an object with "
            "'annotations' or a list of {image_id, bbox, score}."
        )
    by_name = {image.name: image for image in ids}
    by_id: dict[Any, Path] = {number: image for image, number in ids.items()}
    if isinstance(content, dict):
        entries = [entry for entry in content.get("images") or () if isinstance(entry, dict)]
        listed = {Path(str(entry.get("file_name"))).name: entry.get("id") for entry in entries}
        own = {image: listed[image.name] for image in ids if listed.get(image.name) is not None}
        for named, number in own.items():
            if not isinstance(number, int) or not -(2**63) <= number < 2**63:
                raise DistilPoseError(
                    f"Box file {path} gives {named.name} the id {number!r}: expected a whole number of 64 bits, "
                    "as in COCO's files."
                )
        by_id = {number: image for image, number in own.items()}
        ids = {**ids, **{image: number for number, image in by_id.items()}}
        by_name = {}
    found: dict[Path, list[list[float]]] = {}
    for row, box in _wanted(rows, path, category_id, threshold):
        image = by_name.get(Path(str(row.get("file_name"))).name) or by_id.get(row.get("image_id"))
        if image is not None:
            found.setdefault(image, []).append(box)
    if not found:
        raise DistilPoseError(
            f"Box file {path} has no box of category {category_id} for any of the {len(ids)} image(s) "
            f"(first {next(iter(ids)).name}): check that it belongs to them."
        )
    return _tables(found), ids


def read_frame_boxes(path: str | Path, category_id: int, threshold: float = 0.0) -> dict[int, Boxes]:
    """The boxes of a video's frames: a file like that of `read_boxes`, whose image_id is the frame's number, from 0.

    Raises:
        DistilPoseError: the file is not such a file, or has no box.
    """
    content = read_json(path, "Box file", "give it with boxes=FILE, or leave boxes out to use a detector")
    rows = content.get("annotations") if isinstance(content, dict) else content
    if not isinstance(rows, list):
        raise DistilPoseError(
            f"Box file {path} is no list of {{image_id, bbox, score}}: image_id is the frame's number."
        )
    found: dict[int, list[list[float]]] = {}
    for row, box in _wanted(rows, path, category_id, threshold):
        if isinstance(row.get("image_id"), int):
            found.setdefault(row["image_id"], []).append(box)
    if not found:
        raise DistilPoseError(
            f"Box file {path} has no box of category {category_id}: check that it belongs to the video."
        )
    return _tables(found)


def _wanted(
    rows: list[Any], path: str | Path, category_id: int, threshold: float
) -> Iterator[tuple[dict[str, Any], list[float]]]:
    """Rows of persons, each with x, y, width, height and score; an error on the first that is wrong."""
    for index, row in enumerate(rows):
        if not isinstance(row, dict) or not ("image_id" in row or "file_name" in row) or "bbox" not in row:
            raise DistilPoseError(f"Row {index} of box file {path} lacks 'bbox', or 'image_id' or 'file_name'.")
        if not isinstance(row.get("image_id"), (int, str, type(None))):
            raise DistilPoseError(
                f"Row {index} of box file {path} has image_id {row['image_id']!r}: expected a number."
            )
        box = numbers(row["bbox"], 4, f"'bbox' of row {index} in {path}").tolist()
        (score,) = numbers([row.get("score", 1.0)], 1, f"'score' of row {index} in {path}").tolist()
        wanted = row.get("category_id", category_id) == category_id and not row.get("iscrowd", 0)
        if wanted and score >= threshold:
            yield row, [*box, score]


def _tables(found: dict[Key, list[list[float]]]) -> dict[Key, Boxes]:
    tables = {key: np.array(rows) for key, rows in found.items()}
    return {key: Boxes(table[:, :4], table[:, 4]) for key, table in tables.items()}
