"""Which file of labels belongs to which image of a YOLO folder, in any of the usual layouts."""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from distilpose.curation.formats.common import SUFFIXES
from distilpose.errors import DistilPoseError

Key = tuple[str, ...]
_SPLITS = {"train", "val", "valid", "validation", "test"}
_NUMBER = re.compile(r"[+-]?(\.?\d|(nan|inf)\b)", re.IGNORECASE)
_START = 4096  # characters, in which the first line begins


@dataclass
class LabelFiles:
    """The files of labels below a set's root, by their way there without the folder 'labels'.

    Images and labels lie in images/train and labels/train, in train/images and train/labels, or side by side: without
    'images' and 'labels', an image and its labels have the same way. Photographs kept elsewhere, as beside a zip of
    labels, are told by as much of their way as the labels have; if that fits none, by their own way below the folder of
    images, or by their bare names, if no name is there twice.

    Attributes:
        root: folder of data.yaml.
        images: folder of the images.
        split: part of the set, where one is chosen.
        by_key: the files.
    """

    root: Path
    images: Path
    split: str | None = None
    by_key: dict[Key, Path] = field(init=False)

    def __post_init__(self):
        """Find the files; links are passed over, and so are lists of images or classes and notes.

        Raises:
            DistilPoseError: two files are labels of one name.
        """
        self.root, self.images = self.root.resolve(), self.images.resolve()
        self.by_key = {}
        for path in sorted(self.root.rglob("*.txt")):
            if path.is_file() and not path.is_symlink() and path.stem != "classes" and _holds_labels(path):
                other = self.by_key.setdefault(_key(path.relative_to(self.root), "labels"), path)
                if other != path:
                    raise DistilPoseError(
                        f"{other.relative_to(self.root)} and {path.relative_to(self.root)} in {self.root} are labels of one "
                        "name: remove one, or move it out of the set."
                    )

    def of(self, names: Sequence[str]) -> dict[str, Path]:
        """The labels of the images that have some, by the images' names relative to their folder.

        Raises:
            DistilPoseError: two images have the same labels; or no image has the way of its labels, and their names fit
                several files or another split's.
        """
        whole: dict[Path, str] = {}
        for name in names:
            if (file := self._of_whole_way(name)) is not None:
                self._give(file, name, whole)
        if whole:
            return {name: file for file, name in whole.items()}
        return self._of_own_way(names, bare=False) or self._of_own_way(names, bare=True)

    def chosen(self) -> set[Path]:
        """The files of the split, or all."""
        return {path for key, path in self.by_key.items() if self.split is None or self.split in key[:-1]}

    def splits(self) -> set[str]:
        """The folders that may be chosen as a split."""
        return {folder for key in self.by_key for folder in key[:-1]}

    def _of_whole_way(self, name: str) -> Path | None:
        path, relative = self.images / name, _key(PurePosixPath(name), "images")
        whole = _key(path, "images")
        keys = [_key(path.relative_to(self.root), "images")] if path.is_relative_to(self.root) else []
        keys += [whole[start:] for start in range(len(whole) - len(relative) + 1)]
        if self.split is not None:  # images of one split in a folder that does not name it
            keys.append((self.split, *relative))
        return next((self.by_key[key] for key in keys if key in self.by_key), None)

    def _of_own_way(self, names: Iterable[str], bare: bool) -> dict[str, Path]:
        """The labels whose way ends in the image's own below the folder of images, or in its bare name."""
        chosen = self.chosen()
        by_base: dict[str, list[Key]] = defaultdict(list)
        for key, path in self.by_key.items():
            if path in chosen:
                by_base[key[-1]].append(key)
        found: dict[Path, str] = {}
        for name in names:
            way = _key(PurePosixPath(name), "images")[-1 if bare else 0 :]
            fits = [key for key in by_base.get(way[-1], []) if key[-len(way) :] == way]
            if not fits:
                continue
            file = self.by_key[fits[0]]
            if len(fits) > 1:
                others = " or ".join(str(self.by_key[key].relative_to(self.root)) for key in fits[:2])
                raise DistilPoseError(f"The labels of {name} can be {others} in {self.root}: choose one by --split.")
            self._refuse_other_split(name, fits[0])
            self._give(file, name, found)
        return {name: file for file, name in found.items()}

    def _give(self, file: Path, name: str, found: dict[Path, str]) -> None:
        """One file is the labels of one image."""
        if file in found:
            raise DistilPoseError(
                f"{file} can be the labels of {found[file]} or {name}: give --images a folder laid out as the labels are, "
                "without the other."
            )
        found[file] = name

    def _refuse_other_split(self, name: str, key: Key) -> None:
        """Numbers as names begin anew in each split: an image in a folder 'val' has no labels of 'train'."""
        folders = _key(self.images / name, "images")[-len(PurePosixPath(name).parts) - 1 : -1]
        other = _SPLITS.intersection(folders).difference(key)
        if self.split is None and other and _SPLITS.intersection(key[:-1]):
            raise DistilPoseError(
                f"{self.images / name} lies in a folder {other.pop()!r}, but {self.root} has labels of that name in "
                f"{'/'.join(key[:-1])!r} only: if they are its own, choose them by --split."
            )


def _holds_labels(path: Path) -> bool:
    """Whether it begins with a number, as rows of labels do, or is empty; lists of images and notes do not."""
    with open(path, encoding="utf-8-sig", errors="replace") as file:
        line = file.read(_START).lstrip().partition("\n")[0].rstrip()
    return not line or (_NUMBER.match(line) is not None and not line.lower().endswith(SUFFIXES))


def _key(path: Path | PurePosixPath, folder: str) -> Key:
    """The way to a file without its suffix, and without the last folder of that name; accents are one character each."""
    parts: Sequence[str] = [unicodedata.normalize("NFC", part) for part in path.with_suffix("").parts]
    places = [place for place, part in enumerate(parts[:-1]) if part == folder]
    return tuple(part for place, part in enumerate(parts) if place not in places[-1:])
