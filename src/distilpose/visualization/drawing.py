"""Drawing: skeletons on images, heat maps in colour, contact sheets. Images are (H, W, 3) uint8, RGB."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import matplotlib
import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from distilpose.files import atomic_write
from distilpose.skeleton import Skeleton

Image = NDArray[np.uint8]

COLOURS = {"left": (64, 156, 255), "right": (255, 140, 43), "centre": (90, 214, 110)}
_INK, _PAPER = (40, 40, 40), 255
_GAP, _TITLE = 8, 20  # pixels between the images of a sheet, and of the line of titles
_SUBPIXEL_BITS = 4


def draw_skeleton(
    image: Image,
    keypoints: ArrayLike | Tensor,
    scores: ArrayLike | Tensor | None,
    skeleton: Skeleton,
    threshold: float = 0.2,
) -> Image:
    """A copy of the image with every person's limbs and joints: left blue, right orange, centre green.

    The line width scales with the image. A limb is drawn if both of its joints are.

    Args:
        image: (H, W, 3) uint8, RGB.
        keypoints: (M, K, 2) image pixels.
        scores: (M, K); joints with a score above the threshold are drawn. None draws every finite joint.
        skeleton: limbs and names of the joints.
        threshold: see `scores`.
    """
    drawn = np.ascontiguousarray(image).copy()
    points = np.asarray(keypoints, dtype=np.float64)
    finite: NDArray[np.bool_] = np.asarray(np.isfinite(points).all(axis=-1))
    shown = finite if scores is None else finite & (np.asarray(scores, dtype=np.float64) > threshold)
    # OpenCV's fixed-point coordinates overflow far outside the image
    points = np.clip(np.nan_to_num(points), -10 * max(image.shape), 10 * max(image.shape))
    fixed = np.round(points * 2**_SUBPIXEL_BITS).astype(int)
    width = max(1, round(0.006 * max(image.shape[:2])))
    sides = skeleton.sides
    options: dict[str, Any] = {"lineType": cv2.LINE_AA, "shift": _SUBPIXEL_BITS}
    for person, visible in zip(fixed.tolist(), shown.tolist(), strict=True):
        for start, end in skeleton.limbs:
            if visible[start] and visible[end]:
                colour = COLOURS[sides[start] if sides[start] == sides[end] else "centre"]
                cv2.line(drawn, person[start], person[end], colour, width, **options)
        for joint, point in enumerate(person):
            if visible[joint]:
                radius = round(max(2.5, 1.2 * width) * 2**_SUBPIXEL_BITS)
                cv2.circle(drawn, point, radius, (255, 255, 255), cv2.FILLED, **options)
                cv2.circle(drawn, point, radius, COLOURS[sides[joint]], max(1, width // 2), **options)
    return drawn


def draw_numbers(image: Image, boxes: ArrayLike, numbers: Sequence[int]) -> Image:
    """A copy of the image with every person's number at the top-left corner of the box.

    Args:
        image: (H, W, 3) uint8, RGB.
        boxes: (N, 4) x, y, width, height.
        numbers: N track ids.
    """
    drawn = np.ascontiguousarray(image).copy()
    scale = max(0.35, max(image.shape[:2]) / 1000)
    for (x, y, *_), number in zip(np.asarray(boxes).reshape(-1, 4).tolist(), numbers, strict=True):
        corner = (int(max(0, min(x, image.shape[1] - 1))), int(max(24 * scale, min(y, image.shape[0] - 1))))
        for ink, width in (((0, 0, 0), 3), ((255, 255, 255), 1)):
            thickness = max(1, round(width * scale))
            cv2.putText(drawn, str(number), corner, cv2.FONT_HERSHEY_SIMPLEX, scale, ink, thickness, cv2.LINE_AA)
    return drawn


def crop_image(image: Tensor, mean: Sequence[float], std: Sequence[float], size: Sequence[int] | None = None) -> Image:
    """A normalised crop (3, H, W) as an image, resized to (H, W) `size` if given."""
    planes = image.detach().float().cpu().numpy().transpose(1, 2, 0)
    picture = np.clip(np.round(255 * (planes * np.asarray(std) + np.asarray(mean))), 0, 255).astype(np.uint8)
    return picture if size is None else cv2.resize(picture, (size[1], size[0]), interpolation=cv2.INTER_CUBIC)


def heatmap_image(heatmap: ArrayLike | Tensor, size: Sequence[int] | None = None) -> Image:
    """A heat map in colour, black at 0 and bright at 1.

    Args:
        heatmap: (h, w), or (K, h, w) whose maximum over joints is shown.
        size: (H, W) of the image; by default the size of the map.
    """
    return _coloured(_flat(heatmap), "magma", size)


def difference_image(difference: ArrayLike | Tensor, size: Sequence[int] | None = None) -> Image:
    """A difference of two heat maps in colour: white at 0, full red at 1, full blue at -1.

    Args:
        difference: (h, w), or (K, h, w) whose value of largest magnitude over joints is shown.
        size: (H, W) of the image; by default the size of the map.
    """
    return _coloured(_flat(difference) / 2.0 + 0.5, "RdBu_r", size)


def contact_sheet(rows: Sequence[Sequence[Image]], titles: Sequence[str]) -> Image:
    """Images in rows and columns on white, each centred in its cell.

    Args:
        rows: rows of images. Sizes and lengths of rows may differ.
        titles: headings of the columns (ASCII).
    """
    columns = max(len(row) for row in rows)
    widths = [max(row[c].shape[1] for row in rows if c < len(row)) for c in range(columns)]
    heights = [max(picture.shape[0] for picture in row) for row in rows]
    left = np.cumsum([_GAP, *(width + _GAP for width in widths)])
    top = np.cumsum([_GAP + _TITLE, *(height + _GAP for height in heights)])
    sheet = np.full((top[-1], left[-1], 3), _PAPER, dtype=np.uint8)
    for column, text in enumerate(titles):
        _write(sheet, text, left[column], _GAP + 12, widths[column])
    for number, row in enumerate(rows):
        for column, picture in enumerate(row):
            y = top[number] + (heights[number] - picture.shape[0]) // 2
            x = left[column] + (widths[column] - picture.shape[1]) // 2
            sheet[y : y + picture.shape[0], x : x + picture.shape[1]] = picture
    return sheet


def write_picture(path: Path, picture: Image, quality: int = 95) -> None:
    """Write an image atomically, in the format of the file's suffix; `quality` is that of a JPEG, 0 to 100."""
    # cv2.imwrite does not report write errors
    pixels = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
    # OpenCV warns of parameters that are another format's
    parameters = [cv2.IMWRITE_JPEG_QUALITY, quality] if path.suffix.lower() in (".jpg", ".jpeg") else []
    _, content = cv2.imencode(path.suffix, pixels, parameters)
    with atomic_write(path) as temporary:
        temporary.write_bytes(content.tobytes())


def _write(sheet: Image, text: str, x: int, y: int, room: int) -> None:
    """Write a line of text, smaller if it does not fit into `room` pixels."""
    (width, _), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, 0.45, 1)
    scale = 0.45 * min(1.0, room / max(width, 1))
    cv2.putText(sheet, text, (int(x), int(y)), cv2.FONT_HERSHEY_SIMPLEX, scale, _INK, 1, cv2.LINE_AA)


def _flat(maps: ArrayLike | Tensor) -> NDArray[np.float32]:
    """Reduce the maps of several joints to the value of largest magnitude in each cell."""
    if isinstance(maps, Tensor):
        maps = maps.detach().float().cpu().numpy()
    values = np.nan_to_num(np.asarray(maps, dtype=np.float32))
    if values.ndim == 3:
        values = np.take_along_axis(values, np.abs(values).argmax(0)[None], axis=0)[0]
    return values


def _coloured(values: NDArray[np.float32], colours: str, size: Sequence[int] | None) -> Image:
    """Apply a colour map to values in [0, 1]; enlarging keeps cells sharp."""
    picture = (matplotlib.colormaps[colours](np.clip(values, 0, 1))[..., :3] * 255).round().astype(np.uint8)
    if size is None:
        return picture
    return cv2.resize(picture, (int(size[1]), int(size[0])), interpolation=cv2.INTER_NEAREST)
