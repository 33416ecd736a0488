"""Which photograph below --images a name in the labels means, the same for all formats."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath

from distilpose.curation.formats.common import Source, image_names
from distilpose.curation.image_files import climbs_out, find_inside

# how sure it is that a photograph is meant: between the two, how many parts the ends of its path and of the name share
_SANITISED, _EXACT = 0, 1_000_000
_PARTS_OF_ROOT = 3  # folders above the photographs that a name may tell too
# what a path of any system begins with that is no path in a folder
_ABSOLUTE = re.compile(r"^(?:[A-Za-z]:[\\/]*|[\\/]+)")


@dataclass
class Wanted:
    """An image that the labels name.

    Attributes:
        readings: paths that the name may mean, the likeliest first.
        count: how many persons or tasks are left out with it.
        uploaded: for a file uploaded to Label Studio, its name there without the number put before it.
    """

    readings: Sequence[str]
    count: int = 0
    uploaded: str | None = None


def find_photographs(source: Source, wanted: Mapping[str, Wanted], what: str) -> dict[str, str]:
    """The photographs of all names that mean exactly one; the others are counted, with an example.

    A name is taken for the file of that path below the folder; else for the only photograph whose path ends most alike, at
    least with the same base name. Where several names mean one photograph, the one that tells most of its path has it.

    Args:
        source: holds the folder, and counts what is left out.
        wanted: by the name that the labels have.
        what: what is counted, as "persons of images".

    Returns:
        For each name that was found the photograph, relative to the folder.
    """
    photographs = _Photographs(source.images)
    claims: dict[str, list[tuple[int, str]]] = {}
    for name, one in wanted.items():
        try:
            rank, found = photographs.find(one)
        except PermissionError:
            source.leave_out(f"{what} whose names lead out of the image folder", one.count)
            continue
        if len(found) == 1:
            claims.setdefault(found[0], []).append((rank, name))
        elif found:
            example = f"{_shown(one)} is {' or '.join(map(repr, sorted(found)[:2]))}"
            source.leave_out(f"{what} whose name several photographs have", one.count, example)
        else:
            source.leave_out(f"{what} that are missing", one.count, f"no {_shown(one)} below --images")
    return dict(_shared_out(claims, wanted, what, source))


def _shared_out(
    claims: Mapping[str, list[tuple[int, str]]], wanted: Mapping[str, Wanted], what: str, source: Source
) -> list[tuple[str, str]]:
    """Name and photograph, where not another name means the photograph as well or better."""
    kept = []
    for photograph, names in claims.items():
        best = max(rank for rank, _ in names)
        ties = sum(rank == best for rank, _ in names)
        for rank, name in names:
            if rank < best:
                example = f"no {_shown(wanted[name])} below --images but that of another name"
                source.leave_out(f"{what} that are missing", wanted[name].count, example)
            elif ties > 1 and best < _EXACT:  # two images of one base name, of which one photograph is there
                reason = f"{what} with different names that one photograph fits"
                source.leave_out(reason, wanted[name].count, f"{photograph!r} fits {_shown(wanted[name])}")
            else:
                kept.append((name, photograph))
    return kept


class _Photographs:
    """The images below a folder; it is searched only for names that are no path in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.root = _composed("/".join(folder.resolve().parts[1:][-_PARTS_OF_ROOT:]))

    @cached_property
    def _names(self) -> list[str]:
        return list(image_names(self.folder))

    @cached_property
    def _by_end(self) -> dict[str, list[str]]:
        """The images by each end of their path: x.jpg, a/x.jpg and so on, up to some folders above --images."""
        found: dict[str, list[str]] = {}
        for name in self._names:
            for end in _ends(f"{self.root}/{_composed(name)}"):
                found.setdefault(end, []).append(name)
        return found

    @cached_property
    def _by_path(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for name in self._names:
            found.setdefault(_composed(name), []).append(name)
        return found

    @cached_property
    def _by_sanitised(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for name in self._names:
            found.setdefault(_sanitised(_composed(name.rpartition("/")[2])), []).append(name)
        return found

    def find(self, one: Wanted) -> tuple[int, list[str]]:
        """How sure, and the photographs that it can be.

        Raises:
            PermissionError: the path leads out of the folder.
        """
        ranked: list[tuple[int, list[str]]] = []
        for reading in one.readings:
            ranked.append(self._of(reading))
            if ranked[-1][0] == _EXACT:
                return ranked[-1]
        if one.uploaded is not None:
            ranked.append((1, self._by_end.get(_composed(one.uploaded), [])))
            ranked.append((_SANITISED, self._by_sanitised.get(_composed(one.uploaded), [])))
        return max((pair for pair in ranked if pair[1]), key=lambda pair: pair[0], default=(0, []))

    def _of(self, name: str) -> tuple[int, list[str]]:
        below = _ABSOLUTE.sub("", name)
        way = _composed(PurePosixPath(below.replace("\\", "/")).as_posix())
        if below != name:  # where it was on another machine: never opened, only its ends are looked for
            if climbs_out(below):
                raise PermissionError(name)
            return self._ending_as(way)
        try:
            find_inside(self.folder, name)
            return _EXACT, [PurePosixPath(name).as_posix()]
        except PermissionError:
            raise
        except (OSError, ValueError):  # not there, or no name that a file can have
            found = self._by_path.get(way, [])
        return (_EXACT, found) if found else self._ending_as(way)

    def _ending_as(self, way: str) -> tuple[int, list[str]]:
        """The images that share the longest end with the path."""
        for end in _ends(way):
            if found := self._by_end.get(end):
                return end.count("/") + 1, found
        return 0, []


def _ends(way: str) -> Iterator[str]:
    """The ends of a path, from the whole path to the base name: a/x.jpg, x.jpg."""
    parts = way.split("/")
    return ("/".join(parts[place:]) for place in range(len(parts)))


def _shown(one: Wanted) -> str:
    return repr((one.uploaded or one.readings[0])[-60:])


def _composed(name: str) -> str:
    """The name with accents as one character each: some systems write them as two."""
    return unicodedata.normalize("NFC", name)


def _sanitised(name: str) -> str:
    """The name as Label Studio keeps an uploaded file of that name."""
    return re.sub(r"[^-\w.]", "", name.replace(" ", "_"))
