"""Decoding of image files, the same for training, evaluation, recording and prediction: 8-bit BGR, turned by EXIF.

`distilpose.runtime` imports it, so it needs OpenCV only; without Pillow, headers are not read.
"""

from __future__ import annotations

import io
import logging
import math
import re
import struct
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from distilpose.data.image_formats import decode_with_pillow
from distilpose.errors import DistilPoseError
from distilpose.files import foreign_content

log = logging.getLogger(__name__)

_DEPTHS = (8, 10, 12, 14, 16)  # bits that cameras and medical devices write into 16-bit files
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
# PGM and PPM, plain or not: width, height and the largest value, with comments
_PNM = re.compile(rb"P[2356](?:(?:\s|#[^\n]*\n)+(\d{1,5})){3}\s")


def read_image(path: str | Path) -> NDArray[np.uint8]:
    """An image as (H, W, 3) uint8 in OpenCV's order, blue first; see `decode_image`.

    Raises:
        OSError: the file cannot be read.
        DistilPoseError: it is not an image, or a truncated JPEG.
    """
    content = Path(path).read_bytes()
    image = decode_image(content, str(path))
    if image is None:
        reason = foreign_content(path) or "it is cut off or not an image: download it again"
        raise DistilPoseError(f"Image {path} cannot be read ({len(content)} bytes): {reason}.")
    return image


def decode_image(content: bytes, name: str = "The image") -> NDArray[np.uint8] | None:
    """An image file's content as (H, W, 3) uint8, blue first; None if it is cut off or cannot be decoded.

    It is turned by its EXIF entry. Transparency is dropped, grey and palettes become colours. More than 8 bits, or real
    numbers, are scaled to 8 bits by `to_8_bits`.

    Args:
        content: the bytes of the file.
        name: name of the file, for the log.
    """
    image: NDArray[Any] | None = None
    if content and not is_cut_off(content):
        if content[:4] in _TIFF:
            image = _decode_tiff(content)
        elif content[4:8] == b"ftyp":  # AVIF and HEIC, which OpenCV does not turn
            image = decode_with_pillow(content)
        if image is None:
            image = _decode_with_opencv(content, cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH)
        if image is None:
            image = decode_with_pillow(content)
    largest = stated_largest(content)
    if image is not None and largest not in (None, 255, 65535):
        _log_depth(f"values from 0 to {largest}", name)
        return np.round(image.astype(np.float64).clip(max=largest) * (255 / largest)).astype(np.uint8)
    if image is None or image.dtype == np.uint8:
        return image
    bits = 16 if largest == 65535 else significant_bits(content) or needed_bits(image)
    if bits == 16 and image.dtype == np.uint16:
        return _decode_with_opencv(content, cv2.IMREAD_COLOR)
    return to_8_bits(image, bits, name)


def _decode_with_opencv(content: bytes, flags: int) -> NDArray[Any] | None:
    with suppress(cv2.error):  # raised for more pixels than OpenCV's limit, for example
        return cv2.imdecode(np.frombuffer(content, np.uint8), flags)
    return None


def needed_bits(image: NDArray[Any]) -> int:
    """The least of 8, 10, 12, 14 and 16 bits that hold the largest value, or more."""
    largest = float(np.nan_to_num(image, nan=0.0, posinf=0.0, neginf=0.0).max(initial=0))
    needed = math.floor(math.log2(largest)) + 1 if largest >= 1 else 0
    return next((depth for depth in _DEPTHS if depth >= needed), needed)


def to_8_bits(image: NDArray[Any], bits: int, name: str = "The image") -> NDArray[np.uint8]:
    """Pixels of more than 8 bits, or real numbers, as 8 bits; each depth is logged once.

    12 bits in a 16-bit file are a nearly black image if they are taken as 16.

    Args:
        image: (H, W, C) of integers or floats. Floats are shares of 1 if none is larger.
        bits: bits of the values, otherwise.
        name: name of the file, for the log.
    """
    is_real = image.dtype.kind == "f"
    values = np.nan_to_num(image, nan=0.0, posinf=0.0, neginf=0.0) if is_real else image
    if is_real and values.max(initial=0) <= 1:
        _log_depth(f"{image.dtype} from 0 to 1", name)
        return np.round(np.clip(values, 0, 1) * 255).astype(np.uint8)
    _log_depth(f"{bits} bits in {image.dtype}", name)
    if not is_real and image.dtype.kind == "u":
        return np.minimum(image >> max(0, bits - 8), 255).astype(np.uint8)
    return np.clip(np.floor(values / 2.0 ** (bits - 8)), 0, 255).astype(np.uint8)


def significant_bits(content: bytes) -> int | None:
    """Bits of a sample that a PNG or TIFF file states to be significant; None if it does not state fewer than it stores."""
    if content.startswith(b"\x89PNG"):
        # chunks before the pixels; sBIT has one byte for each channel
        place = 8
        while place + 8 <= len(content):
            length, kind = struct.unpack(">I4s", content[place : place + 8])
            if kind == b"sBIT" and length:
                bits = max(content[place + 8 : place + 8 + min(length, 4)], default=0)
                return bits if 8 <= bits < 16 else None
            if kind == b"IDAT":
                return None
            place += 12 + length
    return None


def stated_largest(content: bytes) -> int | None:
    """The value of white that a PGM or PPM file states, from 1 to 65535, which OpenCV ignores; None for other files."""
    header = _PNM.match(content)
    return int(header[1]) or None if header else None


def is_deep(content: bytes) -> bool:
    """Whether a PNG stores 16 bits for each colour, which Pillow does not tell for RGB."""
    return content.startswith(b"\x89PNG") and content[24:25] == b"\x10"


def is_cut_off(content: bytes) -> bool:
    """Whether these are the bytes of a truncated JPEG: its last scan has no end marker.

    Decoders fill the missing part with grey, without an error.
    """
    end = b"\xff\xd9"
    if not content.startswith(b"\xff\xd8") or content.endswith(end):
        return False
    return content.rfind(end) < content.rfind(b"\xff\xda")


def _decode_tiff(content: bytes) -> NDArray[Any] | None:
    """A TIFF with transparency, palette, CMYK or one channel of more than 16 bits, which OpenCV reads otherwise or not at all.

    Others, and damaged ones, give None.
    """
    try:
        from PIL import Image, ImageOps

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(content)) as image:
                if image.mode in ("L", "RGB") or image.mode.startswith("I;16"):
                    return None
                picture = ImageOps.exif_transpose(image)
                if image.mode not in ("I", "F"):
                    return np.ascontiguousarray(np.asarray(picture.convert("RGB"))[..., ::-1])
                return np.repeat(np.asarray(picture)[..., None], 3, axis=2)
    except Exception:  # on damaged files Pillow's readers raise exceptions of any type
        return None


_logged: set[str] = set()


def _log_depth(depth: str, name: str) -> None:
    if depth not in _logged:
        _logged.add(depth)
        log.warning(f"{name} has {depth}, read as 8 bits for each colour; other files like it are not reported again.")
