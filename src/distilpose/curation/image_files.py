"""Image files from strangers: where they lie, and what their headers state before anything is unpacked."""

from __future__ import annotations

import os
import stat
import warnings
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import NamedTuple

from PIL import Image

from distilpose.errors import DistilPoseError

FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "TIFF", "GIF")
MOST_PIXELS = 100_000_000
MOST_BYTES = 256 * 2**20
_ORIENTATION = 0x0112


class ImageTooLargeError(DistilPoseError):
    """An image file has too many bytes or pixels to be read."""


class Header(NamedTuple):
    """What an image file states.

    Attributes:
        width: pixels, as stored.
        height: pixels, as stored.
        mode: Pillow's name of the kind of pixels.
        orientation: EXIF's; 1 is upright.
    """

    width: int
    height: int
    mode: str
    orientation: int

    @property
    def shown(self) -> tuple[int, int]:
        """Width and height as OpenCV and viewers show it, turned by EXIF."""
        return (self.height, self.width) if self.orientation >= 5 else (self.width, self.height)


def climbs_out(name: str) -> bool:
    """Whether a file name leads out of the folder it is joined to, on any system."""
    paths = PurePosixPath(name), PureWindowsPath(name)
    leads_out = any(path.anchor or ".." in path.parts for path in paths)
    return leads_out or "\0" in name or not name.strip()


def find_inside(folder: Path, name: str) -> Path:
    """The file of that name below a folder.

    Raises:
        PermissionError: the name or a link on its way leads out of the folder; nothing was opened.
        FileNotFoundError: it does not exist, or is no regular file.
    """
    path, root = folder / name, os.path.realpath(folder)
    if climbs_out(name) or os.path.commonpath([root, os.path.realpath(path)]) != root:
        raise PermissionError(name)
    try:
        is_regular = stat.S_ISREG(path.stat().st_mode)  # a pipe would block, a device never end
    except OSError:  # also of names that are too long
        is_regular = False
    if not is_regular:
        raise FileNotFoundError(name)
    return path


def read_header(path: Path) -> Header:
    """Size and kind of an image, from its first bytes.

    Raises:
        ImageTooLargeError: it has too many bytes, or unpacks to too many pixels.
        DistilPoseError: it is no image, or of a format that is not supported.
    """
    too_large = ImageTooLargeError(
        f"Image {path} has more than {MOST_BYTES >> 20} MiB or {MOST_PIXELS / 1e6:g} million pixels: make it smaller."
    )
    if path.stat().st_size > MOST_BYTES:
        raise too_large
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path, formats=FORMATS) as image:
                has_exif = image.format in ("JPEG", "TIFF", "WEBP", "PNG")
                orientation = image.getexif().get(_ORIENTATION, 1) if has_exif else 1
                header = Header(*image.size, image.mode, orientation if orientation in range(1, 9) else 1)
    except Image.DecompressionBombError:
        raise too_large from None
    except Exception as error:  # broken files make Pillow's readers fail in any way
        raise DistilPoseError(f"Image {path} cannot be read ({type(error).__name__}).") from None
    if header.width * header.height > MOST_PIXELS:
        raise too_large
    return header
