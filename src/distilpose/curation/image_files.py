"""Untrusted image files: lookup inside their folder, and the header, which is read before the image is decoded."""

from __future__ import annotations

import os
import stat
import warnings
from collections.abc import Iterator
from functools import cache
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import NamedTuple

from PIL import Image

from distilpose.data.image_formats import PILLOW_FORMATS, is_readable, register_heif
from distilpose.errors import DistilPoseError

MAX_PIXELS = 100_000_000
MAX_BYTES = 256 * 2**20
_ORIENTATION = 0x0112


class ImageTooLargeError(DistilPoseError):
    """An image file has too many bytes or pixels to be read."""


class Header(NamedTuple):
    """Header of an image file.

    Attributes:
        width: pixels, as stored.
        height: pixels, as stored.
        mode: Pillow's image mode, such as RGB.
        orientation: EXIF orientation; 1 is upright.
    """

    width: int
    height: int
    mode: str
    orientation: int

    @property
    def displayed_size(self) -> tuple[int, int]:
        """Width and height as OpenCV and viewers show it, turned by EXIF."""
        return (self.height, self.width) if self.orientation >= 5 else (self.width, self.height)


@cache
def _formats() -> tuple[str, ...]:
    """Pillow's names of the formats that training reads."""
    register_heif()
    Image.init()
    return ("JPEG", "PNG", "WEBP", *(name for name in PILLOW_FORMATS if name in Image.OPEN))


def image_names(folder: Path) -> Iterator[str]:
    """Names of the images below a folder, relative to it, without hidden ones; links to folders are not followed."""
    for root, _, files in os.walk(folder):
        for file in files:
            if file[0] != "." and is_readable(os.path.splitext(file)[1]):
                yield (Path(root) / file).relative_to(folder).as_posix()


def leads_out(name: str) -> bool:
    """Whether a path joined to a folder can lead out of the folder, on any system."""
    paths = PurePosixPath(name), PureWindowsPath(name)
    outside = any(path.anchor or ".." in path.parts for path in paths)
    return outside or "\0" in name or not name.strip()


def find_inside(folder: Path, name: str) -> Path:
    """The file of that name below a folder.

    Raises:
        PermissionError: the name or a link on its way leads out of the folder; nothing was opened.
        FileNotFoundError: it does not exist, or is no regular file.
    """
    path, root = folder / name, os.path.realpath(folder)
    if leads_out(name) or os.path.commonpath([root, os.path.realpath(path)]) != root:
        raise PermissionError(f"{name!r} leads out of {folder}")
    try:
        is_regular = stat.S_ISREG(path.stat().st_mode)  # reading a pipe would block, and a device may have no end
    except OSError:  # also raised for names that are too long
        is_regular = False
    if not is_regular:
        raise FileNotFoundError(name)
    return path


def read_header(path: Path) -> Header:
    """Header of an image, without decoding its pixels.

    Raises:
        ImageTooLargeError: it has too many bytes or too many pixels.
        DistilPoseError: it is not an image of a supported format.
    """
    too_large = ImageTooLargeError(
        f"Image {path} has more than {MAX_BYTES >> 20} MiB or {MAX_PIXELS / 1e6:g} million pixels: make it smaller."
    )
    if path.stat().st_size > MAX_BYTES:
        raise too_large
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path, formats=_formats()) as image:
                orientation = image.getexif().get(_ORIENTATION, 1)
                tags = getattr(image, "tag_v2", {})  # Pillow states a TIFF's size as it is turned
                size = int(tags.get(256, image.width)), int(tags.get(257, image.height))
                header = Header(*size, image.mode, orientation if orientation in range(1, 9) else 1)
    except Image.DecompressionBombError:
        raise too_large from None
    except Exception as error:  # on damaged files Pillow's readers raise exceptions of any type
        raise DistilPoseError(f"Image {path} cannot be read ({type(error).__name__}).") from None
    if header.width * header.height > MAX_PIXELS:
        raise too_large
    return header
