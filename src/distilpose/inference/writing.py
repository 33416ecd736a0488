"""Files of a prediction: results.json, results.csv, and drawn images; see `video_writing` for the drawn video."""

from __future__ import annotations

import csv
import json
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from distilpose.files import atomic_write
from distilpose.inference.video_writing import VideoWriter, atomic_video
from distilpose.skeleton import Skeleton
from distilpose.visualization.drawing import Image, draw_numbers, draw_skeleton

__all__ = ["RowBuffer", "VideoWriter", "atomic_video", "draw_rows", "drawing_paths", "write_csv", "write_rows"]

# first columns of results.csv, if the rows have them; the box and the joints follow
COLUMNS = ("image_id", "file_name", "frame", "time", "track_id", "score")


class RowBuffer:
    """Rows in order, in an unnamed file on disk, so that the rows of a camera do not fill the memory.

    Args:
        folder: folder on the disk to use.
    """

    def __init__(self, folder: Path) -> None:
        self._file = tempfile.TemporaryFile("w+", dir=folder, encoding="utf-8")  # noqa: SIM115 - open as long as the buffer
        self._count = 0

    def __len__(self) -> int:
        """Number of rows."""
        return self._count

    def add(self, rows: Sequence[dict[str, Any]]) -> None:
        """Append rows."""
        self._file.writelines(json.dumps(row) + "\n" for row in rows)
        self._count += len(rows)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """The rows from the first; do not add rows during the iteration."""
        self._file.seek(0)
        yield from map(json.loads, self._file)


def write_rows(rows: Iterable[dict[str, Any]], path: Path) -> None:
    """Write rows as one JSON list, atomically."""
    with atomic_write(path) as temporary, open(temporary, "w", encoding="utf-8") as file:
        file.write("[")
        for index, row in enumerate(rows):
            file.write((", " if index else "") + json.dumps(row))
        file.write("]")


def write_csv(rows: Iterable[dict[str, Any]], skeleton: Skeleton, path: Path) -> Path:
    """Write one line for each person: its image, score, box, and x, y and score of each joint by name."""
    first = next(iter(rows), None)
    columns = [column for column in COLUMNS if first is None or column in first]
    joints = [f"{name}_{part}" for name in skeleton.names for part in ("x", "y", "score")]
    with atomic_write(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow([*columns, "box_x", "box_y", "box_width", "box_height", *joints])
        for row in rows:
            name = str(row.get("file_name", ""))
            # a spreadsheet would run such a name as a formula
            shown = {**row, "file_name": f"'{name}" if name[:1] in ("=", "+", "-", "@") else name}
            writer.writerow([*(shown.get(column, "") for column in columns), *row["box"], *row["keypoints"]])
    return path


def draw_rows(image: Image, rows: Sequence[dict[str, Any]], skeleton: Skeleton, threshold: float) -> Image:
    """The image with the skeletons of its rows, and their identities if they are tracked."""
    joints = np.array([row["keypoints"] for row in rows]).reshape(-1, skeleton.num_keypoints, 3)
    drawing = draw_skeleton(image, joints[..., :2], joints[..., 2], skeleton, threshold)
    tracked = [row for row in rows if "track_id" in row]
    return draw_numbers(drawing, [row["box"] for row in tracked], [row["track_id"] for row in tracked])


def drawing_paths(output: Path, images: Sequence[Path]) -> dict[str, Path]:
    """Files for the drawings of images by name: NAME.jpg, or NAME.png.jpg for all if some differ only in their suffix."""
    ambiguous = len({image.stem for image in images}) < len(images)
    return {image.name: output / f"{image.name if ambiguous else image.stem}.jpg" for image in images}
