"""Pairs the label files and the images of a YOLO folder, in any of the usual layouts."""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from distilpose.errors import DistilPoseError
from distilpose.inference.images import SUFFIXES

Key = tuple[str, ...]
_SPLITS = {"train", "val", "valid", "validation", "test"}
_NUMBER = re.compile(r"[+-]?(\.?\d|(nan|inf)\b)", re.IGNORECASE)
_START = 4096  # characters read to find the first line


@dataclass
class LabelFiles:
    """Label files below the root of a set, by their path relative to it without the folder 'labels'.

    Images and labels lie in images/train and labels/train, in train/images and train/labels, or side by side: without
    'images' and 'labels', an image and its labels have the same path. Images outside the root, such as beside a zip of
    labels, are matched by the end of their path. If no image matches, they are matched by their path below the image
    folder, or by unique base names.

    Attributes:
        root: folder of data.yaml.
        images: folder of the images.
        split: the chosen split, if any.
        by_key: the label files by their key.
    """

    root: Path
    images: Path
    split: str | None = None
    by_key: dict[Key, Path] = field(init=False)

    def __post_init__(self) -> None:
        """Find the label files. Links, lists of images or classes, and notes are skipped.

        Raises:
            DistilPoseError: two files are labels of one image.
        """
        self.root, self.images = self.root.resolve(), self.images.resolve()
        self.by_key = {}
        for path in sorted(self.root.rglob("*.txt")):
            if path.is_file() and not path.is_symlink() and path.stem != "classes" and _holds_labels(path):
                other = self.by_key.setdefault(_key(path.relative_to(self.root), "labels"), path)
                if other != path:
                    raise DistilPoseError(f"{other} and {path} are labels of the same image: remove one of them.")

    def of(self, names: Sequence[str]) -> dict[str, Path]:
        """Label files of the images that have one.

        Args:
            names: names of the images, relative to their folder.

        Raises:
            DistilPoseError: a file matches two images, or an image matches several files or only files of another split.
        """
        matched: dict[Path, str] = {}
        for name in names:
            if (file := self._match_whole_path(name)) is not None:
                self._assign(file, name, matched)
        if matched:
            return {name: file for file, name in matched.items()}
        return self._match_ends(names, base_only=False) or self._match_ends(names, base_only=True)

    def chosen(self) -> set[Path]:
        """Files of the split, or all."""
        return {path for key, path in self.by_key.items() if self.split is None or self.split in key[:-1]}

    def splits(self) -> set[str]:
        """Folders that can be chosen as a split."""
        return {folder for key in self.by_key for folder in key[:-1]}

    def _match_whole_path(self, name: str) -> Path | None:
        path, relative = self.images / name, _key(PurePosixPath(name), "images")
        full = _key(path, "images")
        keys = [_key(path.relative_to(self.root), "images")] if path.is_relative_to(self.root) else []
        keys += [full[start:] for start in range(len(full) - len(relative) + 1)]
        if self.split is not None:  # for image folders without the name of the split
            keys.append((self.split, *relative))
        return next((self.by_key[key] for key in keys if key in self.by_key), None)

    def _match_ends(self, names: Iterable[str], base_only: bool) -> dict[str, Path]:
        """Label files whose path ends in the image's path below the image folder, or in its base name."""
        chosen = self.chosen()
        by_base: dict[str, list[Key]] = defaultdict(list)
        for key, path in self.by_key.items():
            if path in chosen:
                by_base[key[-1]].append(key)
        matched: dict[Path, str] = {}
        for name in names:
            end = _key(PurePosixPath(name), "images")[-1 if base_only else 0 :]
            keys = [key for key in by_base.get(end[-1], []) if key[-len(end) :] == end]
            if len(keys) > 1:
                files = " or ".join(str(self.by_key[key]) for key in keys[:2])
                raise DistilPoseError(f"The labels of {name} can be {files}: choose a split by --split.")
            if keys:
                self._check_split(name, keys[0])
                self._assign(self.by_key[keys[0]], name, matched)
        return {name: file for file, name in matched.items()}

    def _assign(self, file: Path, name: str, matched: dict[Path, str]) -> None:
        """Assign a file to one image only."""
        other = matched.setdefault(file, name)
        if other != name:
            raise DistilPoseError(
                f"{file} can be the labels of {other} or {name}: give --images a folder with the layout of the "
                "labels, without the other image."
            )

    def _check_split(self, name: str, key: Key) -> None:
        """Raise if an image in a folder such as 'val' matches only labels of another split, such as 'train'."""
        folders = _key(self.images / name, "images")[-len(PurePosixPath(name).parts) - 1 : -1]
        other = _SPLITS.intersection(folders).difference(key)
        if self.split is None and other and _SPLITS.intersection(key[:-1]):
            raise DistilPoseError(
                f"{self.images / name} lies in a folder {other.pop()!r}, but {self.root} has labels of that name in "
                f"{'/'.join(key[:-1])!r} only: if they belong together, choose them by --split."
            )


def _holds_labels(path: Path) -> bool:
    """Whether a file is empty or starts with a number, as labels do, in contrast to lists of images and notes."""
    with open(path, encoding="utf-8-sig", errors="replace") as file:
        line = file.read(_START).lstrip().partition("\n")[0].rstrip()
    return not line or (_NUMBER.match(line) is not None and not line.lower().endswith(SUFFIXES))


def _key(path: Path | PurePosixPath, folder: str) -> Key:
    """Parts of a path without suffix and without the last folder of that name, with each accented letter as one character."""
    parts: Sequence[str] = [unicodedata.normalize("NFC", part) for part in path.with_suffix("").parts]
    places = [place for place, part in enumerate(parts[:-1]) if part == folder]
    return tuple(part for place, part in enumerate(parts) if place not in places[-1:])
