"""Finds the images below --images that the labels name; the same for all formats."""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath

from distilpose.curation.conversion.source import Source
from distilpose.curation.image_files import find_inside, image_names, leads_out, read_header
from distilpose.errors import DistilPoseError

# rank of a match; between these two it is the number of parts that the ends of both paths share
_SANITISED, _EXACT = 0, 1_000_000
_PARTS_OF_ROOT = 3  # folders above the image folder that a name may include
# start of an absolute path of any system
_ABSOLUTE = re.compile(r"^(?:[A-Za-z]:[\\/]*|[\\/]+)")


@dataclass
class ImageReference:
    """An image that the labels name.

    Attributes:
        readings: paths that the name can mean, the likeliest first.
        count: number of persons or tasks that are skipped without it.
        uploaded: name of a file uploaded to Label Studio, without the prefix that Label Studio adds.
    """

    readings: Sequence[str]
    count: int = 0
    uploaded: str | None = None

    @property
    def shown(self) -> str:
        """The name for a message."""
        return repr((self.uploaded or self.readings[0])[-60:])


def image_size(source: Source, name: str, what: str, count: int = 1) -> tuple[int, int] | None:
    """Width and height of an image as viewers show it. If it cannot be used, None, and the reason is counted.

    Args:
        source: gives the image folder, and gets the count.
        name: name of the image, relative to the folder.
        what: what is skipped with it, such as "persons of images".
        count: number of persons or tasks that are skipped.
    """
    try:
        return read_header(find_inside(source.images, name)).displayed_size
    except PermissionError:
        reason = "whose names lead out of the image folder"
    except DistilPoseError:
        reason = "that cannot be read or are too large"
    except (OSError, ValueError):
        reason = "that are missing"
    source.skip(f"{what} {reason}", count)
    return None


def find_images(source: Source, references: Mapping[str, ImageReference], what: str) -> dict[str, str]:
    """Find the image of each name. Names with no image or with several are counted, with an example.

    A name means the file of that path below the folder. If there is none, it means the image that shares the longest end
    of its path with the name, at least the base name. If several names fit one image, the name that shares the longest end
    gets it.

    Args:
        source: gives the image folder, and gets the counts.
        references: the images by their name in the labels.
        what: what is counted, such as "persons of images".

    Returns:
        Image by name in the labels; images are relative to the folder.
    """
    index = _ImageIndex(source.images)
    claims: dict[str, list[tuple[int, str]]] = defaultdict(list)
    for name, reference in references.items():
        try:
            rank, matches = index.find(reference)
        except PermissionError:
            source.skip(f"{what} whose names lead out of the image folder", reference.count)
            continue
        if len(matches) == 1:
            claims[matches[0]].append((rank, name))
        elif matches:
            example = f"{reference.shown} is {' or '.join(map(repr, sorted(matches)[:2]))}"
            source.skip(f"{what} whose name several images have", reference.count, example)
        else:
            source.skip(f"{what} that are missing", reference.count, f"no {reference.shown} below --images")
    return dict(_best_claims(claims, references, what, source))


def _best_claims(
    claims: Mapping[str, list[tuple[int, str]]], references: Mapping[str, ImageReference], what: str, source: Source
) -> Iterator[tuple[str, str]]:
    """(name, image) of the name that fits each image best; ties and worse names are counted."""
    for image, names in claims.items():
        best = max(rank for rank, _ in names)
        ties = sum(rank == best for rank, _ in names)
        for rank, name in names:
            reference = references[name]
            if rank < best:
                example = f"no {reference.shown} below --images but that of another name"
                source.skip(f"{what} that are missing", reference.count, example)
            elif ties > 1 and best < _EXACT:  # two images of one base name, of which only one exists
                example = f"{image!r} fits {reference.shown}"
                source.skip(f"{what} with different names that one image fits", reference.count, example)
            else:
                yield name, image


class _ImageIndex:
    """Index of the images below a folder. The folder is searched only if a name is not a path in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.root = _composed("/".join(folder.resolve().parts[1:][-_PARTS_OF_ROOT:]))

    def _index(self, keys: Callable[[str], Iterator[str]]) -> dict[str, list[str]]:
        """Names of the images by their keys."""
        index: dict[str, list[str]] = defaultdict(list)
        for name in self._names:
            for key in keys(_composed(name)):
                index[key].append(name)
        return dict(index)

    @cached_property
    def _names(self) -> list[str]:
        return list(image_names(self.folder))

    @cached_property
    def _by_end(self) -> dict[str, list[str]]:
        """Images by each end of their path: x.jpg, a/x.jpg and so on, up to some folders above --images."""
        return self._index(lambda name: _ends(f"{self.root}/{name}"))

    @cached_property
    def _by_sanitised(self) -> dict[str, list[str]]:
        """Images by the base name that Label Studio gives to an uploaded file."""
        return self._index(lambda name: iter([re.sub(r"[^-\w.]", "", name.rpartition("/")[2].replace(" ", "_"))]))

    def find(self, reference: ImageReference) -> tuple[int, list[str]]:
        """Rank of the best match, and the images of that rank.

        Raises:
            PermissionError: the path leads out of the folder.
        """
        ranked: list[tuple[int, list[str]]] = []
        for reading in reference.readings:
            ranked.append(self._find_path(reading))
            if ranked[-1][0] == _EXACT:
                return ranked[-1]
        if reference.uploaded is not None:
            ranked.append((1, self._by_end.get(_composed(reference.uploaded), [])))
            ranked.append((_SANITISED, self._by_sanitised.get(_composed(reference.uploaded), [])))
        return max((pair for pair in ranked if pair[1]), key=lambda pair: pair[0], default=(0, []))

    def _find_path(self, name: str) -> tuple[int, list[str]]:
        relative = _ABSOLUTE.sub("", name)
        path = _composed(PurePosixPath(relative.replace("\\", "/")).as_posix())
        if relative != name:  # a path of another machine is never opened; only its end is compared
            if leads_out(relative):
                raise PermissionError(name)
            return self._find_end(path)
        try:
            find_inside(self.folder, name)
            return _EXACT, [PurePosixPath(name).as_posix()]
        except PermissionError:
            raise
        except (OSError, ValueError):  # it does not exist, or is not a valid file name
            matches = [match for match in self._by_end.get(path, []) if _composed(match) == path]
        return (_EXACT, matches) if matches else self._find_end(path)

    def _find_end(self, path: str) -> tuple[int, list[str]]:
        """Images that share the longest end with the path."""
        for end in _ends(path):
            if matches := self._by_end.get(end):
                return end.count("/") + 1, matches
        return 0, []


def _ends(path: str) -> Iterator[str]:
    """Ends of a path, from the whole path to the base name: a/x.jpg, x.jpg."""
    parts = path.split("/")
    return ("/".join(parts[start:]) for start in range(len(parts)))


def _composed(name: str) -> str:
    """The name with each accented letter as one character; macOS uses two."""
    return unicodedata.normalize("NFC", name)
