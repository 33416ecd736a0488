"""Files of a prediction: results.json, results.csv, drawn images, and a drawn video."""

from __future__ import annotations

import csv
import json
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from distilpose.errors import DistilPoseError
from distilpose.files import atomic_write
from distilpose.skeleton import Skeleton
from distilpose.visualization.drawing import Image, draw_numbers, draw_skeleton

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


class VideoWriter:
    """Writes MPEG-4 video in the size of the first frame, rounded down to even numbers; other frames are scaled to it.

    Args:
        path: .mp4 or .avi.
        fps: frames a second.
    """

    def __init__(self, path: Path, fps: float) -> None:
        self.path, self.fps = path, fps
        self._writer: cv2.VideoWriter | None = None
        self._size = (0, 0)
        self.count = 0

    def write(self, image: Image) -> None:
        """Add an RGB frame.

        Raises:
            DistilPoseError: OpenCV cannot write such a video here.
        """
        if self._writer is None:
            self._size = (image.shape[1] // 2 * 2, image.shape[0] // 2 * 2)
            self._writer = cv2.VideoWriter(str(self.path), cv2.VideoWriter.fourcc(*"mp4v"), self.fps, self._size)
            if not self._writer.isOpened():
                raise DistilPoseError(
                    f"OpenCV cannot write a video with the suffix '{self.path.suffix}' here: use .avi or .mp4, or draw=false "
                    "for predict."
                )
        if image.shape[1] // 2 * 2 == self._size[0] and image.shape[0] // 2 * 2 == self._size[1]:
            image = image[: self._size[1], : self._size[0]]
        else:
            image = cv2.resize(image, self._size, interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)
        self._writer.write(cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
        self.count += 1

    def close(self) -> None:
        """Finish the file; without any frame it is an empty file."""
        if self._writer is None:
            self.path.touch()
        else:
            self._writer.release()


@contextmanager
def atomic_video(path: Path, fps: float) -> Iterator[VideoWriter]:
    """A writer of a video that is renamed to `path` when the block ends, and removed if the block raises.

    An existing video that is longer, from an earlier start that got further, is kept.
    """
    with atomic_write(path) as temporary:
        writer = VideoWriter(temporary, fps)
        try:
            yield writer
        finally:
            writer.close()
        if path.exists() and cv2.VideoCapture(str(path)).get(cv2.CAP_PROP_FRAME_COUNT) > writer.count:
            shutil.copyfile(path, temporary)
