"""Crop geometry: from a person's box to an affine map from image pixels to crop pixels.

Sizes are rounded to float32 wherever the released pipeline rounds them, so that the matrices are equal bit for bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from distilpose.errors import DistilPoseError

MAX_SIDE = 32_766  # pixels; OpenCV before version 5 cannot warp a larger image
MIN_BOX_SIDE, MAX_BOX_SIDE = 0.01, 1e6  # pixels; beyond these a crop's map cannot be inverted in float32
UNIT = 200.0  # pixels; the release rounds box sizes in this unit


class Region(NamedTuple):
    """The part of an image that a crop shows, before rotation and flip.

    Attributes:
        centre: (2,) float32, x and y in image pixels.
        size: (2,) float32, width and height in image pixels, in the proportions of the crop.
    """

    centre: NDArray[np.float32]
    size: NDArray[np.float32]


def given_boxes(boxes: ArrayLike, size: tuple[int, int]) -> NDArray[np.float64]:
    """Boxes from a user as an (N, 4) array.

    Args:
        boxes: (N, 4) x, y, width, height in image pixels, or four numbers for one person.
        size: (H, W) of the image.

    Raises:
        DistilPoseError: the shape is wrong, or a box is empty, huge, not finite, or completely outside the image.
    """
    expected = "expected x, y, width, height in pixels for each person"
    try:
        table = np.asarray(boxes, dtype=np.float64)
    except (TypeError, ValueError, RuntimeError):  # torch raises the last for a tensor with gradients
        raise DistilPoseError(f"The boxes are no table of numbers ({str(boxes)[:60]}): {expected}.") from None
    if table.size == 0:
        return np.zeros((0, 4))
    if table.shape[-1:] != (4,) or table.ndim > 2:
        shape = " x ".join(map(str, table.shape)) or "one number"
        raise DistilPoseError(f"The boxes are {shape}: {expected}, without a score.")
    table = table.reshape(-1, 4)
    good = on_image(table, size)
    if not good.all():
        raise DistilPoseError(
            f"Box {table[~good][0].tolist()} is empty, huge, not finite or completely outside the image of "
            f"{size[1]} x {size[0]} pixels: {expected}."
        )
    return table


def check_rgb(image: object) -> None:
    """Check that an image from a user is (H, W, 3) uint8.

    Raises:
        DistilPoseError: it is not.
    """
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        got = f"{image.dtype} {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__
        raise DistilPoseError(f"Expected an RGB image, uint8 of shape (height, width, 3), got {got}.")


def can_be_cropped(boxes: NDArray[np.float64]) -> NDArray[np.bool_]:
    """(N,) bool: the box, of (N, 4) x, y, width, height, is finite and neither too small nor too large to crop."""
    extent = boxes[:, 2:]
    good = np.isfinite(boxes).all(1) & ((extent >= MIN_BOX_SIDE) & (extent <= MAX_BOX_SIDE)).all(1)
    return np.asarray(good, dtype=np.bool_)


def on_image(boxes: NDArray[np.float64], size: Sequence[int]) -> NDArray[np.bool_]:
    """(N,) bool: the box can be cropped and overlaps the image.

    Args:
        boxes: (N, 4) x, y, width, height.
        size: (H, W) of the image.
    """
    start, extent = boxes[:, :2], boxes[:, 2:]
    overlaps = ((start < (size[1], size[0])) & (start + extent > 0)).all(1)
    return np.asarray(can_be_cropped(boxes) & overlaps, dtype=np.bool_)


def region_of_box(bbox: ArrayLike, input_size: tuple[int, int], padding: float = 1.25) -> Region:
    """The region around a box: extended to the aspect ratio of the crop, then padded.

    Args:
        bbox: x, y, width, height in image pixels.
        input_size: (H, W) of the crop.
        padding: factor on both sides.
    """
    x, y, width, height = np.asarray(bbox, dtype=np.float64).tolist()
    centre = np.array([x + width * 0.5, y + height * 0.5], dtype=np.float32)
    aspect = input_size[1] / input_size[0]
    if width > aspect * height:
        height = width / aspect
    elif width < aspect * height:
        width = height * aspect
    size = np.array([width / UNIT, height / UNIT], dtype=np.float32) * np.float32(padding)
    return Region(centre, size * np.float32(UNIT))


def warp_of_region(
    region: Region, input_size: tuple[int, int], rotation: float = 0.0, mirror_width: int | None = None
) -> NDArray:
    """The (2, 3) float64 matrix from image pixels to crop pixels.

    It maps the region's centre to (W / 2, H / 2), scales both axes by the ratio of the widths, and rotates about the
    centre.

    Args:
        region: what the crop shows. With `mirror_width` it is a region of the mirrored image.
        input_size: (H, W) of the crop.
        rotation: degrees.
        mirror_width: width of the image, to mirror it first; None does not mirror.
    """
    height, width = input_size
    angle = np.pi * rotation / 180
    half = -0.5 * float(region.size[0])
    up = np.array([-half * np.sin(angle), half * np.cos(angle)])
    source = np.array([region.centre, region.centre + up], dtype=np.float32)
    target = np.array([[width / 2, height / 2], [width / 2, height / 2 - width / 2]], dtype=np.float32)
    warp = cv2.getAffineTransform(_with_right_angle(source), _with_right_angle(target))
    if mirror_width is not None:
        warp = warp @ np.array([[-1.0, 0.0, mirror_width - 1.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    return warp


def warp_image(image: NDArray, warp: NDArray[np.float64], input_size: tuple[int, int]) -> NDArray:
    """The (H, W, C) crop: bilinear, black beyond the image's border."""
    return cv2.warpAffine(image, warp, (input_size[1], input_size[0]), flags=cv2.INTER_LINEAR)


def warp_points(points: NDArray, warp: NDArray[np.float64]) -> NDArray[np.float32]:
    """(K, 2) image pixels to crop pixels."""
    return (points.astype(np.float64) @ warp[:, :2].T + warp[:, 2]).astype(np.float32)


def _with_right_angle(points: NDArray[np.float32]) -> NDArray[np.float32]:
    """Two points and a third one at a right angle to the line between them: three points define an affine map."""
    first, second = points
    dx, dy = first - second
    return np.array([first, second, [second[0] - dy, second[1] + dx]], dtype=np.float32)
