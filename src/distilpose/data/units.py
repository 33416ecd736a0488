"""Finds coordinates that are fractions of the image, as many tools write them, where pixels are expected."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from distilpose.errors import DistilPoseError

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


def corners_sentence(boxes: NDArray[np.float64], sizes: NDArray[np.float64]) -> str:
    """A sentence if boxes seem to be written as two corners; else "".

    Nearly all of them can be corners in their image, and read as x, y, width and height many extend beyond it.

    Args:
        boxes: (N, 4) the four numbers of each box.
        sizes: (N, 2) width and height of its image.
    """
    first, second = boxes[:, :2], boxes[:, 2:]
    over = int((first + second > sizes + 1).any(1).sum())
    corners = int(((first >= 0) & (second > first) & (second <= sizes + 1)).all(1).sum())
    if over < max(_FEWEST, _EXCEEDING * len(boxes)) or corners < _MOSTLY * len(boxes):
        return ""
    return (
        f"{over} of {len(boxes)} boxes extend beyond their image: they may be written as two corners, and are read as x, y, "
        "width and height."
    )
