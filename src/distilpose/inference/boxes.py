"""Boxes of persons, and the files that hold them."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from distilpose.data.image_formats import is_readable
from distilpose.data.image_sizes import displayed_size
from distilpose.errors import DistilPoseError
from distilpose.inference.box_file import BoxFile, Row
from distilpose.inference.image_names import match_names
from distilpose.inference.images import numbers_in_names

log = logging.getLogger(__name__)

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
    path: str | Path, ids: Mapping[Path, int], category_id: int, threshold: float = 0.0, first: int | None = None
) -> tuple[dict[Path, Boxes], Mapping[Path, int]]:
    """The boxes of the images, from a COCO annotation file or a detector's list.

    The file name of a row, or of its entry in `images`, decides which image it belongs to, see `match_names`; rows without
    one belong to the image of that number. Rows of other or ambiguous images, of another category, crowds, and boxes below
    the threshold are skipped and counted in a log message. Boxes without size are kept:
    `distilpose.data.geometry.on_image` finds them.

    Args:
        path: COCO annotation file, or a list of {image_id or file_name, bbox, score (1 if absent), category_id (any if
            absent)}.
        ids: the images and their numbers.
        category_id: category of persons.
        threshold: lowest score of a box.
        first: number of the first image where rows without file name count the images; None takes the numbers in the images'
            names if the rows fit them, else those of `ids`.

    Returns:
        The boxes of each image that has any, and the numbers of the images: those in the file if it states them.

    Raises:
        DistilPoseError: the file is malformed, has no box for any of the images, may count the images in two ways, or states
            another size of an image than it has.
    """
    file = BoxFile(path)
    persons = list(file.persons(category_id, threshold))
    by_id: dict[Any, Path] = {}
    if file.is_list:
        named = [_name_of(row) for row, _ in persons]
        matches = match_names({name for name in named if name}, ids)
        counted = {row.get("image_id") for (row, _), name in zip(persons, named, strict=True) if not name}
        if counted:
            ids, by_id = _images_by_id(ids, counted, first, path)
        elif first is None:
            ids = _renumbered(ids, _stated_numbers(persons, matches.images, path))
    else:
        names: dict[Any, str] = {number: str(entry["file_name"]) for number, entry in file.images.items()}
        named = [names.get(row.get("image_id"), "") for row, _ in persons]
        matches = match_names([*names.values()], ids)
        ids = _renumbered(ids, {matches.images[name]: n for n, name in names.items() if name in matches.images})
    rows_by_key: dict[Path, list[list[float]]] = {}
    for (row, box), name in zip(persons, named, strict=True):
        image = matches.images.get(name) if name else by_id.get(row.get("image_id"))
        if image is not None:
            if image not in rows_by_key:
                file.check_size(row.get("image_id"), image, displayed_size(image) if file.images else None)
            rows_by_key.setdefault(image, []).append(box)
        else:
            unnamed = not name and row.get("image_id") is None
            reason = "of images with an ambiguous name" if name in matches.ambiguous else "of other images"
            file.skipped["that name no image" if unnamed else reason] += 1
    if matches.by_end:
        example = min(matches.by_end)
        log.info(
            f"{path}: {len(matches.by_end)} images were found by the end of their path only, such as {example!r} as "
            f"{matches.images[example]}."
        )
    return tables(rows_by_key, file, category_id, f"the {len(ids)} image(s) (first {next(iter(ids)).name})"), ids


def _images_by_id(
    ids: Mapping[Path, int], given: Collection[Any], first: int | None, path: str | Path
) -> tuple[Mapping[Path, int], dict[Any, Path]]:
    """The images' numbers, and the images that the image_ids of rows without a file name mean.

    An image_id is a number, or the name of the image without its suffix, as some trainers write it.

    Raises:
        DistilPoseError: the numbers fit those in the images' names as well as the images' order, and these differ.
    """
    if first is not None:
        ids = {image: first + position for position, image in enumerate(ids)}
        return ids, {number: image for image, number in ids.items()}
    stems: dict[Any, Path] = {image.stem: image for image in ids}
    if len(stems) == len(ids) and any(isinstance(number, str) and number in stems for number in given):
        return ids, stems | {int(stem): image for stem, image in stems.items() if stem.isascii() and stem.isdigit()}
    in_names = numbers_in_names([image.name for image in ids])
    by_name, by_order = dict(zip(ids, in_names or (), strict=False)), dict(ids)
    chosen = by_order
    if by_name and by_name != by_order and {*given} <= {*by_name.values()}:
        readings = [{number: image for image, number in way.items() if number in given} for way in (by_name, by_order)]
        if {*given} == readings[1].keys() and readings[0] != readings[1]:
            number = next(number for number in readings[0] if readings[0][number] != readings[1][number])
            one, other = (reading[number].name for reading in readings)
            raise DistilPoseError(
                f"Box file {path} has image_id {number}, which may mean {one} by its name or {other} by its order: give a "
                "file_name in every row, or first_frame=1 to count the images from 1 in the order of their names."
            )
        chosen = by_name
    elif by_name != by_order:
        log.info(f"{path}: rows without file_name count the {len(ids)} images from 1 in the order of their names.")
    if shift := shift_of(given, chosen.values()):
        log.warning(f"{path}: {shift}")
    return chosen, {number: image for image, number in chosen.items()}


def shift_of(given: Collection[Any], present: Collection[int]) -> str:
    """A sentence if the numbers in a file seem to be those of the images or frames, shifted by one; else ""."""
    given = [number for number in given if isinstance(number, int)]
    if not given or not present:
        return ""
    shifts = {min(given) - min(present), max(given) - max(present)}
    if len(given) < 2 or shifts not in ({1}, {-1}):
        return ""
    return (
        f"image_id runs from {min(given)} to {max(given)} and the numbers present from {min(present)} to {max(present)}: "
        f"all boxes may be shifted by one; give first_frame={min(given)} if the file counts from {min(given)}."
    )


def _name_of(row: Row) -> str:
    """The file name that a row of a list states; some tools write it as image_id. "" if it states none."""
    number = row.get("image_id")
    is_name = isinstance(number, str) and is_readable(PurePath(number).suffix)
    return str(row.get("file_name") or (number if is_name else ""))


def _stated_numbers(
    persons: Sequence[tuple[Row, Any]], images: Mapping[str, Path], path: str | Path
) -> dict[Path, int]:
    """The numbers of the images that rows with a file name state; none if an image has two, or a number two images."""
    stated = {
        (images[name], row["image_id"])
        for row, _ in persons
        if (name := _name_of(row)) in images and type(row.get("image_id")) is int
    }
    numbers = dict(stated)
    if len(numbers) < len(stated) or len({*numbers.values()}) < len(stated):
        log.warning(f"{path}: rows of one file name and of one image_id are of different images: the names decide.")
        return {}
    return numbers


def _renumbered(ids: Mapping[Path, int], known: Mapping[Path, int]) -> dict[Path, int]:
    """The images with the numbers of the file; those that it does not list get numbers that no other image has."""
    if not known:
        return dict(ids)
    free = max([0, *known.values()]) + 1
    others = {image: free + position for position, image in enumerate(image for image in ids if image not in known)}
    return {image: known[image] if image in known else others[image] for image in ids}


def tables(rows_by_key: dict[Key, list[list[float]]], file: BoxFile, category_id: int, wanted: str) -> dict[Key, Boxes]:
    """The boxes and scores of each image as arrays; an error if no image has any."""
    if not rows_by_key:
        found = f" (the file has {categories})" if (categories := file.categories()) else ""
        left_out = f" ({reasons} are left out)" if (reasons := file.reasons()) else ""
        raise DistilPoseError(
            f"Box file {file.path} has no box of category {category_id}{found} for any of {wanted}{left_out}: check that it "
            "belongs to them."
        )
    file.log_skipped(sum(map(len, rows_by_key.values())))
    tables = {key: np.array(rows) for key, rows in rows_by_key.items()}
    return {key: Boxes(table[:, :4], table[:, 4]) for key, table in tables.items()}
