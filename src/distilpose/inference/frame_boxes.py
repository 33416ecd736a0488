"""Reads the boxes of a video's frames from a file."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from distilpose.inference.box_file import BoxFile, frame_of
from distilpose.inference.boxes import Boxes, tables
from distilpose.inference.images import numbers_in_names

log = logging.getLogger(__name__)


def read_frame_boxes(
    path: str | Path,
    category_id: int,
    threshold: float = 0.0,
    first: int = 0,
    video: str | int = "",
    size: tuple[int, int] | None = None,
) -> dict[int, Boxes]:
    """The boxes of the frames of a video, by the number of the frame from 0: a file as for `read_boxes`.

    A row's frame is its `frame`, `frame_id` or `frame_index`, that of its image, the number at the end of its image's file
    name if all file names have one, or its image_id.

    Args:
        path: see `read_boxes`.
        category_id: see `read_boxes`.
        threshold: see `read_boxes`.
        first: number of the video's first frame in the file.
        video: name of the video, for messages.
        size: width and height of its frames.

    Raises:
        DistilPoseError: the file is malformed, has no box, is of several videos, or states another size of the frames.
    """
    file = BoxFile(path)
    file.check_one_video()
    stated = all(isinstance(row, dict) and frame_of(row) is not None for row in file.rows)
    frames = {} if stated else _frames_by_name(file)
    rows_by_key: dict[int, list[list[float]]] = {}
    for row, box in file.persons(category_id, threshold):
        key = str(row["file_name"]) if file.is_list and row.get("file_name") else row.get("image_id")
        number = frame_of(row)
        number = frames.get(key, row.get("image_id")) if number is None else number
        if isinstance(number, int):
            file.check_size(row.get("image_id"), Path(str(video)), size)
            rows_by_key.setdefault(number - first, []).append(box)
        else:
            file.skipped["that name no frame by a number"] += 1
    return tables(rows_by_key, file, category_id, "the video's frames (whose number is the image_id)")


def _frames_by_name(file: BoxFile) -> dict[Any, int]:
    """Frame numbers from the images: by file name for a list, by image_id for an annotation file."""
    stated: dict[Any, Any] = {key: frame_of(entry) for key, entry in file.images.items()}
    if stated and all(isinstance(frame, int) for frame in stated.values()):
        return stated
    ids: dict[Any, Any] = {entry["file_name"]: key for key, entry in file.images.items()}
    if file.is_list:
        ids = {
            str(row["file_name"]): row.get("image_id")
            for row in file.rows
            if isinstance(row, dict) and row.get("file_name")
        }
    frames = numbers_in_names([str(name) for name in ids])
    differing = [
        (name, key, frame)
        for (name, key), frame in zip(ids.items(), frames or (), strict=False)
        if key not in (None, frame)
    ]
    if frames is None:
        return {}
    if differing:
        # if all differ by one, those from 0 count as frames do
        if min(frames) == 1 and {frame - key for _, key, frame in differing if isinstance(key, int)} == {1}:
            return {}
        name, key, _ = differing[0]
        log.info(
            f"{file.path}: {len(differing)} frames are numbered by their file name, such as {name}, and not by their "
            f"image_id, such as {key}."
        )
    return dict(zip(ids if file.is_list else ids.values(), frames, strict=True))
