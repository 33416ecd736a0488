"""What numbers of a foreign file mean: fractions or pixels, corners or sizes, placeholders of areas and visibilities."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from distilpose.errors import DistilPoseError
from distilpose.skeleton_fields import log_once

# area of a person divided by the area of the box, for sets without segmentation (Leeds Sports, CrowdPose, AI Challenger)
AREA_OF_BOX = 0.53
SMALL_AREA = 0.01  # of the box; fractions of the image have less
_LARGEST = 2.0  # pixels; a fraction is at most 1, but persons may extend beyond the image
_MOSTLY, _EXCEEDING, _FEWEST = 0.9, 0.3, 3  # shares of boxes, and their least number


def check_pixels(values: ArrayLike, where: str | Path, field: str, expected: str) -> None:
    """Raise if all coordinates of a file are fractions: in pixels they would all lie in one corner of the image.

    Args:
        values: all coordinates of the file.
        where: the file, for the message.
        field: name of the field that holds them.
        expected: what it should hold.
    """
    largest = float(np.abs(np.asarray(values, dtype=np.float64)).max(initial=0.0))
    if 0 < largest <= _LARGEST:
        raise DistilPoseError(
            f"{where} has no coordinate above {largest:g} in '{field}', so they seem to be fractions of the image: write "
            f"{expected} in pixels."
        )


def corner_boxes(boxes: NDArray[np.float64], sizes: NDArray[np.float64]) -> NDArray[np.bool_]:
    """(N) The boxes that extend beyond their image, if boxes seem to be written as two corners; else none.

    Nearly all of them can be corners in their image, and read as x, y, width and height many extend beyond it.

    Args:
        boxes: (N, 4) the four numbers of each box.
        sizes: (N, 2) width and height of its image.
    """
    first, second = boxes[:, :2], boxes[:, 2:]
    over = (first + second > sizes + 1).any(1)
    corners = ((first >= 0) & (second > first) & (second <= sizes + 1)).all(1)
    likely = over.sum() >= max(_FEWEST, _EXCEEDING * len(boxes)) and corners.sum() >= _MOSTLY * len(boxes)
    return np.asarray(over & likely, dtype=np.bool_)


def corners_sentence(boxes: NDArray[np.float64], sizes: NDArray[np.float64]) -> str:
    """A sentence if boxes seem to be written as two corners (see `corner_boxes`); else ""."""
    over = int(corner_boxes(boxes, sizes).sum())
    if not over:
        return ""
    return (
        f"{over} of {len(boxes)} boxes extend beyond their image: they may be written as two corners, and are read as x, y, "
        "width and height."
    )


def is_crowd(annotation: Mapping[str, Any]) -> bool:
    """Whether an annotation or a box is of a crowd: its `iscrowd` is there and not 0; some tools write numbers as text."""
    return annotation.get("iscrowd") not in (None, 0, "", "0")


def area_of(annotation: Mapping[str, Any]) -> Any:
    """Area of a person in square pixels: as annotated, or a share of its box if it is absent, null or a placeholder of 0."""
    area = annotation.get("area")
    if area is not None and not (isinstance(area, (int, float)) and area <= 0):
        return area
    width, height = annotation.get("bbox", [0, 0, 0, 0])[2:]
    return AREA_OF_BOX * width * height


def log_label_notes(entries: Sequence[Mapping[str, Any]], points: NDArray[np.float64], path: str | Path) -> None:
    """Log once what the labels of a file may mean otherwise in the tool that wrote them, each with a number.

    Args:
        entries: M annotations.
        points: (M, K, 3) their x, y and visibility.
        path: the file.
    """
    labelled = points[..., 2] > 0
    odd = points[..., 2][~np.isin(points[..., 2], (0, 1, 2))]
    counts = labelled.sum(1).tolist()
    stated = [entry.get("num_keypoints") if entry.get("keypoints") is not None else None for entry in entries]
    differing = sum(number not in (None, count) for number, count in zip(stated, counts, strict=True))
    placeholders = sum(entry.get("area") is not None and entry["area"] <= 0 for entry in entries)
    shares = [entry["area"] / (entry["bbox"][2] * entry["bbox"][3] or 1) for entry in entries if entry.get("area")]
    small = sum(0 < share < SMALL_AREA for share in shares)
    at_corner = int((labelled & is_placeholder(points)).sum())
    for count, note in (
        (
            odd.size,
            f"joints have a visibility other than 0, 1 or 2, such as {odd[:1].sum():g}: above 0 counts as labelled; are they "
            "scores of a model?",
        ),
        (differing, "persons have another 'num_keypoints' than labelled joints: the joints count."),
        (placeholders, f"persons have an 'area' of 0 or less: {AREA_OF_BOX} of the box is used."),
        (
            small if small > len(entries) / 2 else 0,
            f"persons have an 'area' below {SMALL_AREA:.0%} of their box, so AP is near 0: write square pixels, or omit it.",
        ),
        (
            at_corner,
            "labelled joints lie at (0, 0) or (-1, -1), where tools put joints without a label: give them v = 0.",
        ),
    ):
        if count:
            log_once(f"{path}: {count} {note}")


def is_placeholder(points: NDArray[np.float64]) -> NDArray[np.bool_]:
    """(...) Whether points (..., 2 or more) lie at (0, 0) or (-1, -1), where tools put joints without a label."""
    x, y = points[..., 0], points[..., 1]
    return np.asarray(((x == 0) & (y == 0)) | ((x == -1) & (y == -1)), dtype=np.bool_)
