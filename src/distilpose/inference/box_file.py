"""Reads a file of boxes row by row: a COCO annotation file or a detector's list. What is left out is counted."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from distilpose.data.annotations import numbers, read_json
from distilpose.data.image_sizes import check_size
from distilpose.errors import DistilPoseError

log = logging.getLogger(__name__)

Row = dict[str, Any]


class BoxFile:
    """A COCO annotation file, or a list of {image_id or file_name, bbox, score (1 if absent), category_id (any if absent)}.

    Args:
        path: the file.

    Attributes:
        rows: its rows, unchecked.
        images: entries of the images that an annotation file lists, by their ids; empty for a list.
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
            DistilPoseError: a row has no box, or does not name its image.
        """
        for index, row in enumerate(self.rows):
            named = isinstance(row, dict) and "bbox" in row and ("image_id" in row or "file_name" in row)
            if not named or not isinstance(row.get("image_id"), (int, str, type(None))):
                raise DistilPoseError(
                    f"Row {index} of box file {self.path} must have 'bbox', and 'image_id' (a number) or 'file_name': "
                    f"{str(row)[:80]}"
                )
            box = numbers(row["bbox"], 4, f"'bbox' of row {index} in {self.path}").tolist()
            (score,) = numbers([row.get("score", 1.0)], 1, f"'score' of row {index} in {self.path}").tolist()
            if row.get("category_id", category_id) != category_id:
                self.skipped[f"of another category than {category_id}"] += 1
            elif row.get("iscrowd", 0):
                self.skipped["of crowds"] += 1
            elif score < threshold:
                self.skipped[f"with a score below {threshold:g}"] += 1
            else:
                yield row, [*box, score]

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
        sides = [side for key in ("width", "height") if isinstance(side := entry.get(key), (int, float))]
        if shown is not None and len(sides) == 2:
            check_size(path, shown, (int(sides[0]), int(sides[1])), self.path)

    def categories(self) -> str:
        """The categories of the rows, for messages."""
        return ", ".join(sorted({str(row["category_id"]) for row in self.rows if "category_id" in row})[:5])

    def log_skipped(self, used: int) -> None:
        """Log the number of rows that are left out."""
        if self.skipped:
            reasons = ", ".join(f"{count} {reason}" for reason, count in self.skipped.most_common())
            log.warning(f"{self.path}: {used} of {used + self.skipped.total()} rows are used; left out are {reasons}.")
