"""Sizes of image files, compared with those that an annotation file states."""

from __future__ import annotations

import warnings
from pathlib import Path

from distilpose.errors import DistilPoseError

_ORIENTATION = 0x0112
_PLAIN_RATIOS = 16  # largest number in a ratio that is named, such as 1/2 or 3/4


def check_size(path: Path, shown: tuple[int, ...], stated: tuple[int, ...], source: str | Path) -> None:
    """Check that a decoded image has the size that the annotation file states: otherwise its labels lie elsewhere.

    Args:
        path: the image, or a video.
        shown: width and height of the decoded image.
        stated: width and height in the annotation file.
        source: the annotation file.

    Raises:
        DistilPoseError: a side differs by more than a pixel. The message names a plain ratio, or exchanged sides.
    """
    if shown == stated or min(stated) <= 0:
        return
    turned = shown == stated[::-1]
    if is_rounded(shown, stated):
        return
    sizes = f"{path} has {shown[0]} x {shown[1]} pixels, but {source} states {stated[0]} x {stated[1]}"
    if turned and (orientation := orientation_of(path)) >= 5:
        raise DistilPoseError(
            f"{sizes}: the tool that labelled it ignored its EXIF orientation {orientation}, so the labels belong to the "
            "unturned photograph. Write the photographs without EXIF (Pillow: Image.open(file).save(copy)), or turn the labels."
        )
    if turned:
        raise DistilPoseError(
            f"{sizes}: the sides are exchanged. Exchange width and height in the file if the labels fit the photograph as it "
            "is, or give the file that was labelled."
        )
    ratio = plain_ratio(shown, stated)
    if ratio is not None:
        raise DistilPoseError(
            f"{sizes}: it is {ratio} of the size that was labelled. Give the file that was labelled, or multiply "
            f"width, height, bbox and keypoints in the file by {ratio} and area by its square."
        )
    raise DistilPoseError(
        f"{sizes}: it is another picture, or a cropped one. Give the file that was labelled "
        "(python -m distilpose.dataset check lists all such images)."
    )


def is_rounded(shown: tuple[float, ...], stated: tuple[float, ...]) -> bool:
    """Whether the sizes differ by a pixel at most, as tools that scale images round them. Exchanged sides are no rounding."""
    turned = shown != stated and shown == stated[::-1]
    return not turned and all(abs(one - other) <= 1 for one, other in zip(shown, stated, strict=True))


def plain_ratio(shown: tuple[float, ...], stated: tuple[float, ...]) -> str | None:
    """The factor from the stated to the shown size, such as 1/2 or 0.347; None if the shapes differ.

    Sides may be rounded by a pixel.
    """
    factor = (shown[0] + shown[1]) / (stated[0] + stated[1])
    if any(abs(one - factor * other) > 1 for one, other in zip(shown, stated, strict=True)):
        return None
    for below in range(1, _PLAIN_RATIOS + 1):
        above = round(factor * below)
        fits = (abs(one - above * other / below) <= 1 for one, other in zip(shown, stated, strict=True))
        if 1 <= above <= _PLAIN_RATIOS and all(fits):
            return f"{above}/{below}" if below > 1 else str(above)
    return f"{factor:.3g}"


def displayed_size(path: Path) -> tuple[int, int] | None:
    """Width and height of an image file as it is decoded, from its header; None if Pillow cannot read it."""
    header = _header(path)
    return None if header is None else header[1::-1] if header[2] >= 5 else header[:2]


def orientation_of(path: Path) -> int:
    """EXIF orientation of an image file; 1 if it has none."""
    header = _header(path)
    return 1 if header is None else header[2]


def _header(path: Path) -> tuple[int, int, int] | None:
    """Width, height and EXIF orientation as stored."""
    try:
        from PIL import Image

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path) as image:
                orientation = image.getexif().get(_ORIENTATION, 1)
                # Pillow states a TIFF's size as it is turned
                tags = getattr(image, "tag_v2", {})
                width, height = int(tags.get(256, image.width)), int(tags.get(257, image.height))
                return width, height, orientation if orientation in range(1, 9) else 1
    except Exception:  # on damaged files Pillow's readers raise exceptions of any type
        return None
