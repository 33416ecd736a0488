"""Reads a file of boxes row by row: a COCO annotation file or a detector's list. What is left out is counted."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator
from pathlib import Path, PurePath
from typing import Any

from distilpose.data.annotations import numbers, read_json
from distilpose.data.boxes import SCORE_LIMIT
from distilpose.data.image_sizes import check_size
from distilpose.data.units import check_pixels, is_crowd
from distilpose.errors import DistilPoseError

log = logging.getLogger(__name__)

Row = dict[str, Any]

PERSON = 1  # COCO's category, the default of category_id
FRAMES = ("frame", "frame_id", "frame_index")  # what tools call the number of a frame
_SCORES = ("confidence", "conf", "probability", "prob", "scores")  # what tools call a score


def frame_of(entry: Row) -> Any:
    """The frame that a row or an image states, None if it states none."""
    return next((entry[key] for key in FRAMES if isinstance(entry.get(key), (int, float, str))), None)


class BoxFile:
    """A COCO annotation file, or a list of {image_id or file_name, bbox, score (1 if absent), category_id (any if absent)}.

    Args:
        path: the file.

    Attributes:
        rows: its rows, unchecked.
        images: entries of the images that an annotation file lists, by their ids; empty for a list.
        names: names of the categories that an annotation file lists, by their ids.
        is_list: whether it is a list.
        skipped: number of rows that are left out, by the reason.

    Raises:
        DistilPoseError: the file is malformed.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = path
        content = read_json(path, "Box file", "give it with boxes=FILE, or leave boxes out to use detector=…")
        self.is_list = not isinstance(content, dict)
        self.rows: Any = content if self.is_list else content.get("annotations")
        if not isinstance(self.rows, list):
            raise DistilPoseError(
                f"Box file {path} must be a COCO annotation file (an object with 'annotations') or a list of "
                "{image_id, bbox, score}."
            )
        self.images = {} if self.is_list else self._images(content.get("images") or ())
        given = None if self.is_list else content.get("categories")
        entries = given if isinstance(given, list) else ()
        self.names = {
            entry["id"]: entry["name"]
            for entry in entries
            if isinstance(entry, dict) and isinstance(entry.get("id"), int) and isinstance(entry.get("name"), str)
        }
        self.skipped: Counter[str] = Counter()

    def _images(self, entries: Any) -> dict[int, Row]:
        images: dict[int, Row] = {}
        for entry in entries:
            if not isinstance(entry, dict) or entry.get("id") is None or entry.get("file_name") is None:
                continue
            number, name = entry["id"], entry["file_name"]
            if not isinstance(number, int) or not -(2**63) <= number < 2**63:
                raise DistilPoseError(
                    f"Box file {self.path} gives {Path(str(name)).name} the id {number!r}: expected a whole number of 64 bits, "
                    "as in COCO's files."
                )
            if number in images and images[number]["file_name"] != name:
                raise DistilPoseError(
                    f"Box file {self.path} gives {images[number]['file_name']} and {name} the same id {number}: give every "
                    "image its own."
                )
            images[number] = entry
        return images

    def persons(self, category_id: int, threshold: float) -> Iterator[tuple[Row, list[float]]]:
        """Rows of persons, each with x, y, width, height and score.

        Raises:
            DistilPoseError: a row has no box or does not name its image, or category, boxes or scores are not what they
                seem to be.
        """
        self._check_category(category_id)
        boxes: list[list[float]] = []
        unscored, highest = Counter[str](), 0.0
        for index, row in enumerate(self.rows):
            keys = ("image_id", "file_name", *FRAMES)
            named = isinstance(row, dict) and "bbox" in row and any(key in row for key in keys)
            if not named or not isinstance(row.get("image_id"), (int, str, type(None))):
                raise DistilPoseError(
                    f"Row {index} of box file {self.path} must have 'bbox', and 'image_id' (a number) or 'file_name': "
                    f"{str(row)[:80]}"
                )
            box = numbers(row["bbox"], 4, f"'bbox' of row {index} in {self.path}").tolist()
            (score,) = numbers([row.get("score", 1.0)], 1, f"'score' of row {index} in {self.path}").tolist()
            if row.get("category_id", category_id) != category_id:
                self.skipped[f"of another category than {category_id}"] += 1
            elif is_crowd(row):
                self.skipped["of crowds"] += 1
            elif score < threshold:
                self.skipped[f"with a score below {threshold:g}"] += 1
            else:
                boxes.append(box)
                highest = max(highest, score)
                if self.is_list and "score" not in row:
                    unscored[next((key for key in _SCORES if key in row), "")] += 1
                yield row, [*box, score]
        check_pixels(boxes, f"Box file {self.path}", "bbox", "x, y, width and height")
        if threshold > 0 and highest > SCORE_LIMIT:
            raise DistilPoseError(
                f"Box file {self.path} has scores up to {highest:g}, and box_threshold={threshold:g} is for scores up to 1: "
                "divide them (by 100 if they are per cent), or give box_threshold=0."
            )
        if unscored:
            other = next(filter(None, unscored), "")
            log.log(
                logging.WARNING if other else logging.INFO,
                f"{self.path}: {unscored.total()} of {len(boxes)} boxes have no 'score', so it is 1"
                + (f"; {unscored[other]} have {other!r}, which is not read: rename it." if other else "."),
            )

    def _check_category(self, category_id: int) -> None:
        """Compare the category of persons with the names in the file, or else with a tool that counts from 0."""
        persons = [number for number, name in self.names.items() if name.lower() == "person"]
        name = self.names.get(category_id)
        if category_id == PERSON and name is not None and name.lower() != "person" and len(persons) == 1:
            raise DistilPoseError(
                f"Box file {self.path} calls its category {category_id} {name!r}, and its persons have {persons[0]}: give "
                f"category_id={persons[0]}, or remove the category of persons from the file to use {name!r}."
            )
        numbers = (row.get("category_id") for row in self.rows if isinstance(row, dict))
        counts = Counter(number for number in numbers if isinstance(number, int))
        if not self.names and category_id == PERSON and counts[0] and counts[PERSON]:
            log.warning(
                f"{self.path}: its categories count from 0 ({counts[0]} rows), where many tools have the person, and the "
                f"{counts[PERSON]} rows of category {PERSON} are used: give category_id=0 if persons are 0."
            )

    def check_one_video(self) -> None:
        """Raise if the images are frames of several videos: frames of one number would be taken as one frame."""
        entries = self.rows if self.is_list else self.images.values()
        firsts: dict[Any, str] = {}
        for entry in entries:
            if not isinstance(entry, dict) or not entry.get("file_name"):
                continue
            name, frame = str(entry["file_name"]), frame_of(entry)
            base = PurePath(name.replace("\\", "/")).name
            other = firsts.setdefault(base if frame is None else frame, name)
            if other != name:
                raise DistilPoseError(
                    f"Box file {self.path} has {other} and {name}, which are one frame of two videos: give a file with the "
                    "boxes of one video."
                )

    def check_size(self, image_id: Any, path: Path, shown: tuple[int, int] | None) -> None:
        """Check that an image, or a video, has the size that an annotation file states for it.

        Args:
            image_id: id of the image in the file.
            path: the image.
            shown: its width and height; None if they are not known.

        Raises:
            DistilPoseError: it has another size, so the boxes lie elsewhere.
        """
        entry = self.images.get(image_id, {})
        sides = [entry.get(key) for key in ("width", "height")]
        stated = tuple(int(side) for side in sides if isinstance(side, (int, float)) and 0 < side < 1e9)
        if shown is not None and len(stated) == 2:
            check_size(path, shown, stated, self.path)

    def categories(self) -> str:
        """The categories of the rows, for messages."""
        return ", ".join(sorted({str(row["category_id"]) for row in self.rows if "category_id" in row})[:5])

    def reasons(self) -> str:
        """The rows that are left out: their number for each reason."""
        return ", ".join(f"{count} {reason}" for reason, count in self.skipped.most_common())

    def log_skipped(self, used: int) -> None:
        """Log the number of rows that are left out."""
        if self.skipped:
            total = used + self.skipped.total()
            log.warning(f"{self.path}: {used} of {total} rows are used; left out are {self.reasons()}.")
