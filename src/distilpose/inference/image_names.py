"""Finds the image that a file of boxes means by a name. The whole path decides, then its longest common end."""

from __future__ import annotations

import os
import re
import unicodedata
from collections import defaultdict
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import NamedTuple

_DRIVE = re.compile(r"^[A-Za-z]:")


class Matches(NamedTuple):
    """Images of the names in a file.

    Attributes:
        images: image of each name that means one.
        ambiguous: names that fit several images, or share their image with another name that fits it as well.
        by_end: names whose folders are not those of their image, so that only the end of the path fits.
    """

    images: dict[str, Path]
    ambiguous: set[str]
    by_end: set[str]


def match_names(names: Collection[str], images: Collection[Path]) -> Matches:
    """Find the images that the names mean.

    A name whose whole path is the end of an image's path means that image. Another name means the image that shares the
    longest end of its path with it, at least the base name, if no name fits that image better. If the folders of some names
    fit, names with other folders mean other images.

    Args:
        names: paths in any spelling, relative or of another machine.
        images: existing images.
    """
    ends: dict[str, set[Path]] = defaultdict(set)
    for image in images:
        for path in {os.path.abspath(image), os.path.realpath(image)}:
            for end in _ends(_parts(path)):
                ends[end].add(image)
    fits: dict[str, tuple[int, bool, set[Path]]] = {}  # length of the common end, whether it is the whole name, images
    for name in names:
        parts = _parts(name)
        for length, end in zip(range(len(parts), 0, -1), _ends(parts), strict=True):
            if end in ends:
                fits[name] = (length, length == len(parts), ends[end])
                break
    folders = max((length for name, (length, *_) in fits.items() if len(_parts(name)) > 1), default=0)
    fits = {name: fit for name, fit in fits.items() if fit[1] or fit[0] == folders}
    ambiguous = {name for name, (*_, found) in fits.items() if len(found) > 1}
    rivals: dict[Path, list[str]] = defaultdict(list)
    for name in fits.keys() - ambiguous:
        rivals[next(iter(fits[name][2]))].append(name)
    result: dict[str, Path] = {}
    for image, candidates in rivals.items():
        whole = [name for name in candidates if fits[name][1]] or candidates
        if len(whole) == 1:
            result[whole[0]] = image
        else:
            ambiguous.update(whole)
    return Matches(result, ambiguous, {name for name in result if not fits[name][1]})


def _parts(name: str) -> list[str]:
    """Parts of a path of any system, each accented letter as one character (macOS uses two)."""
    path = _DRIVE.sub("", unicodedata.normalize("NFC", name).replace("\\", "/"))
    return [part for part in path.split("/") if part not in ("", ".")]


def _ends(parts: list[str]) -> Iterator[str]:
    """The ends of a path, from the whole path to the base name."""
    return ("/".join(parts[start:]) for start in range(len(parts)))
