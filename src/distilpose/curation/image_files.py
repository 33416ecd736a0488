"""Image files that are not trusted: where they lie, and what their headers say before anything is unpacked."""

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
    """An image file, or what it unpacks to, is larger than is read."""


class Header(NamedTuple):
    """What an image file says of itself.

    Attributes:
        width: pixels, as stored.
        height: pixels, as stored.
        mode: Pillow's name of its kind of pixels.
        orientation: EXIF's; 1 is upright.
    """

    width: int
    height: int
    mode: str
    orientation: int

    @property
    def shown(self) -> tuple[int, int]:
        """Width and height as OpenCV and viewers show it, turned as EXIF asks."""
        return (self.height, self.width) if self.orientation >= 5 else (self.width, self.height)


def climbs_out(name: str) -> bool:
    """Whether a file name does not stay below the folder it is joined to."""
    parts = (*PurePosixPath(name).parts, *PureWindowsPath(name).parts)
    absolute = PurePosixPath(name).is_absolute() or PureWindowsPath(name).drive or PureWindowsPath(name).root
    return bool(absolute) or ".." in parts or "\0" in name or not name.strip()


def find_inside(folder: Path, name: str) -> Path:
    """The file of that name below the folder.

    Raises:
        PermissionError: the name or a link on its way leads out of the folder; nothing was opened.
        FileNotFoundError: it is not there, or no plain file.
    """
    if climbs_out(name):
        raise PermissionError(name)
    path = folder / name
    root = os.path.realpath(folder)
    if os.path.commonpath([root, os.path.realpath(path)]) != root:
        raise PermissionError(name)
    try:
        plain = stat.S_ISREG(path.stat().st_mode)  # a pipe would be waited for, a device read for ever
    except OSError:  # also names too long
        plain = False
    if not plain:
        raise FileNotFoundError(name)
    return path


def read_header(path: Path) -> Header:
    """Size and kind of an image, from its first bytes.

    Raises:
        ImageTooLargeError: it has too many bytes, or unpacks to too many pixels.
        DistilPoseError: it is no image of a kind that is read.
    """
    if path.stat().st_size > MOST_BYTES:
        raise ImageTooLargeError(f"Image {path} is larger than {MOST_BYTES >> 20} MiB: make it smaller.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path, formats=FORMATS) as image:
                orientation = (
                    image.getexif().get(_ORIENTATION, 1) if image.format in ("JPEG", "TIFF", "WEBP", "PNG") else 1
                )
                orientation = orientation if orientation in range(1, 9) else 1
                header = Header(*image.size, image.mode, orientation)
    except Image.DecompressionBombError:
        raise _too_large(path) from None
    except Exception as error:  # broken files make Pillow's readers fail in any way
        raise DistilPoseError(f"Image {path} is no image that can be read ({type(error).__name__}).") from None
    if header.width * header.height > MOST_PIXELS:
        raise _too_large(path)
    return header


def _too_large(path: Path) -> ImageTooLargeError:
    return ImageTooLargeError(
        f"Image {path} unpacks to more than {MOST_PIXELS / 1e6:g} million pixels: make it smaller."
    )
