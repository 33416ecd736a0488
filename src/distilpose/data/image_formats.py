"""Formats of image files: which suffixes are read, and the decoder of what OpenCV does not read.

Pillow is imported only when it is needed, since `distilpose.runtime` works without it.
"""

from __future__ import annotations

import io
from functools import cache
from importlib.util import find_spec

import numpy as np
from numpy.typing import NDArray

# read with every installation
SUFFIXES = (
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".bmp", ".dib", ".webp", ".tif", ".tiff", ".gif", ".jp2", ".j2k",
    ".pbm", ".pgm", ".ppm", ".pnm", ".tga",
)  # fmt: skip
HEIF_SUFFIXES = (".heic", ".heif", ".hif")
AVIF_SUFFIXES = (".avif",)
# Pillow's names of the formats that it decodes if OpenCV does not; OpenCV is the only reader of JPEG, PNG and WebP, because
# Pillow would accept some truncated ones
PILLOW_FORMATS = ("GIF", "JPEG2000", "PPM", "TGA", "TIFF", "BMP", "DIB", "AVIF", "HEIF")
EIGHT_BITS = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr")


def is_readable(suffix: str) -> bool:
    """Whether files with this suffix are read here."""
    suffix = suffix.lower()
    return suffix in SUFFIXES or (suffix in HEIF_SUFFIXES and register_heif()) or (suffix in AVIF_SUFFIXES and _avif())


def way_out(suffix: str) -> str:
    """What to do with photographs of this suffix that are not read here; "" if it is not known as one of photographs."""
    if suffix.lower() in HEIF_SUFFIXES and not register_heif():
        return "pip install 'distilpose[heic]' reads them"
    return "pip install 'pillow>=11.3' reads them" if suffix.lower() in AVIF_SUFFIXES and not _avif() else ""


@cache
def register_heif() -> bool:
    """Teach Pillow to read HEIC, the format of iPhones. Returns whether pillow-heif is installed."""
    if find_spec("pillow_heif") is None:
        return False
    from pillow_heif import register_heif_opener

    register_heif_opener()
    return True


@cache
def _avif() -> bool:
    from PIL import Image

    Image.init()
    return "AVIF" in Image.OPEN or ".avif" in Image.registered_extensions()


def decode_with_pillow(content: bytes) -> NDArray | None:
    """The content of an image file that OpenCV cannot decode, as (H, W, 3) uint8, blue first, turned by EXIF.

    None if Pillow cannot decode it either, if it is truncated, or if it has more than 8 bits.
    """
    try:
        from PIL import Image, ImageOps
    except ImportError:
        return None
    register_heif()
    formats = [name for name in PILLOW_FORMATS if name in Image.OPEN]
    try:
        with Image.open(io.BytesIO(content), formats=formats) as file:
            if file.mode not in EIGHT_BITS:  # Pillow would clip the values of the others
                return None
            return np.ascontiguousarray(np.asarray(ImageOps.exif_transpose(file).convert("RGB"))[..., ::-1])
    except Exception:  # on damaged files Pillow's readers raise exceptions of any type
        return None
