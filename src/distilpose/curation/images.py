"""Checks of the image files, each read once: there, whole, of the size told, upright, and not twice."""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from distilpose.curation.findings import Findings
from distilpose.curation.image_files import MOST_BYTES, MOST_PIXELS, ImageTooLargeError, find_inside, read_header
from distilpose.curation.reading import KeypointSet
from distilpose.data.coco import is_cut_off
from distilpose.errors import DistilPoseError

_USUAL = ("RGB", "L")
_DEEP = ("I", "F", "I;16", "I;16B", "I;16L", "CMYK", "LAB", "HSV", "YCbCr")
_BLOCK, _TOGETHER = 1024, 16  # files handed out at a time, and to one thread: a future costs as much as a missing file

Progress = Callable[[Iterable[Any], int], Iterable[Any]]


@dataclass
class Fingerprints:
    """What tells images apart, of those that could be read.

    Attributes:
        names: file names.
        digests: of the bytes.
        hashes: (N,) uint64, alike for pictures that look alike; 0 for pictures without contrast.
    """

    names: list[str] = field(default_factory=list)
    digests: list[bytes] = field(default_factory=list)
    hashes: NDArray[np.uint64] = field(default_factory=lambda: np.zeros(0, dtype=np.uint64))


def check_images(data: KeypointSet, findings: Findings, progress: Progress) -> Fingerprints:
    """Open every image of the file and add what is wrong with it.

    Args:
        data: the set.
        findings: gets what is wrong.
        progress: wraps the loop, given the number of images.
    """
    faults: dict[str, list[str]] = defaultdict(list)
    prints = Fingerprints()
    hashes: list[int] = []
    places = {name: place for place, name in enumerate(data.names)}
    jobs = list(places.items())

    def judge(some: list[tuple[str, int]]) -> list[tuple[str, list[str], bytes, int]]:
        return [(name, *_judge(data, name, place)) for name, place in some]

    def results() -> Iterable[tuple[str, list[str], bytes, int]]:
        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
            for start in range(0, len(jobs), _BLOCK):
                block = jobs[start : start + _BLOCK]
                for rows in pool.map(judge, (block[k : k + _TOGETHER] for k in range(0, len(block), _TOGETHER))):
                    yield from rows

    for name, codes, digest, looks in progress(results(), len(jobs)):
        for code in codes:
            faults[code].append(name)
        if digest:
            prints.names.append(name)
            prints.digests.append(digest)
            hashes.append(looks)
    prints.hashes = np.array(hashes, dtype=np.uint64)
    for code, names in faults.items():
        severity, told, way = _TOLD[code]
        findings.add(severity, code, names, told, way)
    return prints


_TOLD = {
    "image-path-outside": (
        "error",
        "File names, or links on their way, lead out of the image folder; they were not opened. Training follows links.",
        "Name files below the image folder, with copies or hard links in place of links to files elsewhere.",
    ),
    "image-missing": ("error", "Image files are missing.", "Check the image folder, or remove these images."),
    "image-unreadable": ("error", "Files are cut off or no image that can be read.", "Fetch them again."),
    "image-huge": (
        "error",
        f"Images unpack to more than {MOST_PIXELS / 1e6:g} million pixels, or have more than {MOST_BYTES >> 20} MiB; they were "
        "not opened.",
        "Make them smaller, with their labels.",
    ),
    "image-size": (
        "error", "Images have another size than the file says, so labels are likely to be off.",
        "Label the images that are there, or correct width and height.",
    ),
    "image-rotated": (
        "error", "Images are turned by their EXIF entry when they are read, and the labels belong to the unturned ones.",
        "Write the images without EXIF orientation, or turn the labels.",
    ),
    "image-exif": (
        "note", "Images are turned by their EXIF entry; the size told is the turned one.",
        "Look at a few by `dataset browse`.",
    ),
    "image-exif-unclear": (
        "warning", "Images are turned by their EXIF entry, and the size does not tell whether the labels are too.",
        "Look at a few by `dataset browse`.",
    ),
    "image-deep": (
        "warning", "Images have more than 8 bits or are no RGB; colours may come out wrong.", "Write them as 8-bit RGB.",
    ),
    "image-mode": (
        "note", "Images have a palette or transparency; transparency is dropped when they are read.", "Fine as a rule.",
    ),
}  # fmt: skip


def _judge(data: KeypointSet, name: str, place: int) -> tuple[list[str], bytes, int]:
    """Codes of what is wrong with one file, its digest (none if it cannot be used) and its hash."""
    try:
        path = find_inside(data.folder, name)
    except PermissionError:
        return ["image-path-outside"], b"", 0
    except (OSError, ValueError):
        return ["image-missing"], b"", 0
    try:
        header = read_header(path)
        content = path.read_bytes()
    except ImageTooLargeError:
        return ["image-huge"], b"", 0
    except (DistilPoseError, OSError):
        return ["image-unreadable"], b"", 0
    small = None if is_cut_off(content) else _decoded_small(content, min(header.width, header.height))
    if small is None:
        return ["image-unreadable"], b"", 0
    codes = []
    told = tuple(data.sizes[place].tolist())
    if header.orientation != 1:
        stored, shown = (header.width, header.height), header.shown
        unclear = stored == shown or told not in (stored, shown)
        codes.append("image-exif-unclear" if unclear else "image-exif" if told == shown else "image-rotated")
    if np.isfinite(told).all() and told != header.shown and "image-rotated" not in codes:
        codes.append("image-size")
    if header.mode not in _USUAL:
        codes.append("image-deep" if header.mode in _DEEP else "image-mode")
    return codes, hashlib.blake2b(content, digest_size=16).digest(), _looks(small)


def _decoded_small(content: bytes, side: int) -> NDArray[Any] | None:
    """A small grey version: JPEG's decoder skips what it does not need, and finds broken files all the same."""
    large, middling = cv2.IMREAD_REDUCED_GRAYSCALE_8, cv2.IMREAD_REDUCED_GRAYSCALE_4
    flag = large if side >= 400 else middling if side >= 100 else cv2.IMREAD_GRAYSCALE
    try:
        return cv2.imdecode(np.frombuffer(content, np.uint8), flag)
    except cv2.error:
        return None


def _looks(grey: NDArray[Any]) -> int:
    """64 bits that say where the picture gets brighter from left to right; 0 without contrast."""
    small = cv2.resize(grey, (9, 8), interpolation=cv2.INTER_AREA).astype(np.int16)
    if small.max() - small.min() < 16:
        return 0
    return int.from_bytes(np.packbits(small[:, 1:] > small[:, :-1]).tobytes(), "big")
