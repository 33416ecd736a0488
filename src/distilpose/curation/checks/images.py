"""Checks of the image files: missing, damaged, of another size than stated, turned by EXIF. Each file is read once."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from distilpose.curation.checks.findings import Findings, Tally
from distilpose.curation.checks.reading import KeypointSet
from distilpose.curation.image_files import (
    MAX_BYTES,
    MAX_PIXELS,
    ImageTooLargeError,
    find_inside,
    image_names,
    read_header,
)
from distilpose.curation.progress import show_progress
from distilpose.data.image_sizes import is_rounded, plain_ratio
from distilpose.data.images import decode_image, is_cut_off, is_deep
from distilpose.errors import DistilPoseError
from distilpose.files import natural_key

_USUAL = ("RGB", "L")
_BITS = ("I", "F", "I;16", "I;16B", "I;16L", "I;16N")
_DEEP = ("CMYK", "LAB", "HSV", "YCbCr")
_BLOCK, _TOGETHER = 1024, 16  # files submitted at a time, and files per future


@dataclass
class Fingerprints:
    """Digests and hashes of the images that could be read.

    Attributes:
        names: N file names.
        digests: N digests of the bytes.
        hashes: (N,) uint64 perceptual hashes, similar for images that look alike; 0 for images without contrast.
    """

    names: list[str]
    digests: list[bytes]
    hashes: NDArray[np.uint64]


def check_images(data: KeypointSet, findings: Findings) -> Fingerprints:
    """Read every image of the file and add the findings."""
    tally = Tally()
    names, digests, hashes = [], [], []
    listed = {os.path.normpath(name) for name in data.names}
    for name in sorted(set(image_names(data.folder)) - listed, key=natural_key):
        tally.add("image-unlisted", name)
    jobs = list({name: index for index, name in enumerate(data.names)}.items())
    for name, codes, digest, look in show_progress(_check_all(data, jobs), len(jobs), "images"):
        for code, _, detail in (text.partition(" ") for text in codes):
            tally.add(code, f"{name} ({detail})" if detail else name)
        if digest:
            names.append(name)
            digests.append(digest)
            hashes.append(look)
    findings.add_all(tally, megapixels=MAX_PIXELS / 1e6, mebibytes=MAX_BYTES >> 20)
    return Fingerprints(names, digests, np.array(hashes, dtype=np.uint64))


def _check_all(data: KeypointSet, jobs: list[tuple[str, int]]) -> Iterator[tuple[str, list[str], bytes, int]]:
    """Name, problem codes, digest and hash of each image, read by threads."""

    def check(some: list[tuple[str, int]]) -> list[tuple[str, list[str], bytes, int]]:
        return [(name, *_check_image(data, name, index)) for name, index in some]

    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        for start in range(0, len(jobs), _BLOCK):
            block = jobs[start : start + _BLOCK]
            for rows in pool.map(check, (block[k : k + _TOGETHER] for k in range(0, len(block), _TOGETHER))):
                yield from rows


def _check_image(data: KeypointSet, name: str, index: int) -> tuple[list[str], bytes, int]:
    """Codes of the problems of one file, its digest (empty if it cannot be used) and its hash."""
    try:
        path = find_inside(data.folder, name)
        header = read_header(path)
        content = path.read_bytes()
    except PermissionError:
        return ["image-path-outside"], b"", 0
    except ImageTooLargeError:
        return ["image-huge"], b"", 0
    except DistilPoseError:
        return ["image-unreadable"], b"", 0
    except (OSError, ValueError):
        return ["image-missing"], b"", 0
    deep = header.mode in _BITS or is_deep(content)
    small = None
    if not deep and not is_cut_off(content):
        small = _decode_small(content, min(header.width, header.height))
    if small is None:  # OpenCV does not read all that training reads
        image = decode_image(content, name)
        if image is None:
            return ["image-unreadable"], b"", 0
        small = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
    codes = []
    stated = tuple(data.sizes[index].tolist())
    if header.orientation != 1:
        stored, shown = (header.width, header.height), header.displayed_size
        unclear = stored == shown or stated not in (stored, shown)
        codes.append("image-exif-unclear" if unclear else "image-exif" if stated == shown else "image-rotated")
    if np.isfinite(stated).all() and stated != header.displayed_size and "image-rotated" not in codes:
        ratio = plain_ratio(header.displayed_size, stated)
        rounded = is_rounded(header.displayed_size, stated)
        codes.append("image-rounded" if rounded else "image-size" if ratio in (None, "1") else f"image-scaled {ratio}")
    if deep:
        codes.append("image-depth")
    elif header.mode not in _USUAL:
        codes.append("image-deep" if header.mode in _DEEP else "image-mode")
    return codes, hashlib.blake2b(content, digest_size=16).digest(), _difference_hash(small)


def _decode_small(content: bytes, side: int) -> NDArray[Any] | None:
    """A small grey version. It is faster to decode from a JPEG than the full image, and still shows damaged files."""
    eighth, quarter = cv2.IMREAD_REDUCED_GRAYSCALE_8, cv2.IMREAD_REDUCED_GRAYSCALE_4
    flag = eighth if side >= 400 else quarter if side >= 100 else cv2.IMREAD_GRAYSCALE
    with suppress(cv2.error):
        return cv2.imdecode(np.frombuffer(content, np.uint8), flag)
    return None


def _difference_hash(grey: NDArray[Any]) -> int:
    """64-bit difference hash (dHash): where the image gets brighter from left to right; 0 without contrast."""
    small = cv2.resize(grey, (9, 8), interpolation=cv2.INTER_AREA).astype(np.int16)
    if small.max() - small.min() < 16:
        return 0
    return int.from_bytes(np.packbits(small[:, 1:] > small[:, :-1]).tobytes(), "big")
