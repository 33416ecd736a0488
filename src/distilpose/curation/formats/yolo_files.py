"""Which file of labels belongs to which image of a YOLO folder, in any of the usual layouts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

Key = tuple[str, ...]


@dataclass
class LabelFiles:
    """The files of labels below a set's root, by their way there without the folder 'labels'.

    Images and labels lie in images/train and labels/train, in train/images and train/labels, or side by side: without
    'images' and 'labels', an image and its labels have the same way. Photographs kept elsewhere, as beside a zip of
    labels, are told by as much of their way as the labels have.

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
        """Find the files; links are passed over."""
        self.root, self.images = self.root.resolve(), self.images.resolve()
        self.by_key = {}
        for path in sorted(self.root.rglob("*.txt")):
            if path.is_file() and not path.is_symlink() and path.stem != "classes":
                self.by_key.setdefault(_key(path.relative_to(self.root), "labels"), path)

    def of(self, name: str) -> Path | None:
        """The labels of an image, by its name relative to the folder of images."""
        path, relative = self.images / name, _key(PurePosixPath(name), "images")
        whole = _key(path, "images")
        keys = [_key(path.relative_to(self.root), "images")] if path.is_relative_to(self.root) else []
        keys += [whole[start:] for start in range(len(whole) - len(relative) + 1)]
        if self.split is not None:  # images of one split in a folder that does not name it
            keys.append((self.split, *relative))
        return next((self.by_key[key] for key in keys if key in self.by_key), None)

    def chosen(self) -> set[Path]:
        """The files of the split, or all."""
        return {path for key, path in self.by_key.items() if self.split is None or self.split in key[:-1]}


def _key(path: Path | PurePosixPath, folder: str) -> Key:
    """The way to a file without its suffix, and without the last folder of that name."""
    parts: Sequence[str] = path.with_suffix("").parts
    places = [place for place, part in enumerate(parts[:-1]) if part == folder]
    return tuple(part for place, part in enumerate(parts) if place not in places[-1:])
