"""Formats of image files: which suffixes are read, and the decoder. OpenCV decodes what it can, and Pillow the rest.

Pillow is imported only when it is needed, since `distilpose.runtime` works without it.
"""

from __future__ import annotations

import io
from contextlib import suppress
from functools import cache
from importlib.util import find_spec

import cv2
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


def decode(content: bytes) -> NDArray | None:
    """An image file's content as (H, W, 3) uint8 in OpenCV's order, turned by EXIF; None if it is damaged or no image."""
    image: NDArray | None = None
    if content and not is_cut_off(content):
        with suppress(cv2.error):  # raised for more pixels than OpenCV's limit, for example
            image = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
        if image is None:
            image = _decode_with_pillow(content)
    return image


def _decode_with_pillow(content: bytes) -> NDArray | None:
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


def is_cut_off(content: bytes) -> bool:
    """Whether these are the bytes of a truncated JPEG: its last scan has no end marker.

    Decoders fill the missing part with grey, without an error.
    """
    end = b"\xff\xd9"
    if not content.startswith(b"\xff\xd8") or content.endswith(end):
        return False
    return content.rfind(end) < content.rfind(b"\xff\xda")
