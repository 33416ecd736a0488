"""YOLO-pose: data.yaml and a text file an image, in shares of the image's size."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import yaml

from distilpose.curation.formats.common import Person, Source, image_names
from distilpose.curation.image_files import find_inside, read_header
from distilpose.errors import DistilPoseError

_LARGEST_YAML = 2**20


def read(source: Source) -> tuple[list[Person], dict[str, Any]]:
    """The persons of all images below --images whose labels lie in the folder."""
    options = _read_yaml(source.path)
    joints, numbers = _shape(options, source.path)
    kind = _kind(options, source)
    category = (
        source.joints(joints) if source.skeleton or not options.get("kpt_names") else _named(options, joints, source)
    )
    _add_pairs(category, options, joints, source)
    labels = {
        path.relative_to(source.path).with_suffix("").as_posix(): path
        for path in sorted(source.path.rglob("*.txt")) if path.is_file() and not path.is_symlink()
    }  # fmt: skip
    persons: list[Person] = []
    used = set()
    for name in sorted(image_names(source.images)):
        file = next((labels[key] for key in _keys(name, source) if key in labels), None)
        if file is None:
            source.left_out["images without labels"] += 1
            continue
        used.add(file)
        try:
            size = read_header(find_inside(source.images, name)).shown
        except (OSError, ValueError):
            source.left_out["images that cannot be read, are too large or lie elsewhere"] += 1
            continue
        persons += _persons(file, name, size, (joints, numbers, kind), source)
    unused = len([key for key, path in labels.items() if path not in used and not key.endswith("classes")])
    if unused:
        source.left_out["files of labels without an image in --images"] += unused
    return persons, category


def _keys(name: str, source: Source) -> Iterator[str]:
    """Where the labels of an image may lie: as the images do, with 'labels' in place of 'images'."""
    stem = PurePosixPath(name).with_suffix("").as_posix()
    splits = [source.split] if source.split else [source.images.resolve().name, "train", "val", "test"]
    folders = [f"{part}/" for part in splits] if source.split else ["", *(f"{part}/" for part in splits[:1])]
    for folder in folders:
        yield from (f"labels/{folder}{stem}", f"{folder}labels/{stem}", f"{folder}{stem}")
    if "images/" in stem + "/":
        yield stem.replace("images/", "labels/", 1)


def _read_yaml(folder: Path) -> dict[str, Any]:
    found = sorted([*folder.rglob("*.yaml"), *folder.rglob("*.yml")])
    found = [path for path in found if path.name == "data.yaml"] or found
    if len(found) != 1:
        raise DistilPoseError(f"{folder} holds {len(found)} YAML files: expected one data.yaml with 'kpt_shape'.")
    if found[0].stat().st_size > _LARGEST_YAML:
        raise DistilPoseError(
            f"{found[0]} is larger than {_LARGEST_YAML >> 20} MiB: expected a data.yaml of a few lines."
        )
    try:
        content = yaml.safe_load(found[0].read_text(encoding="utf-8"))
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise DistilPoseError(f"{found[0]} is no YAML ({' '.join(str(error).split())[:120]}).") from None
    if not isinstance(content, dict):
        raise DistilPoseError(f"{found[0]} holds no settings: expected 'kpt_shape' and 'names'.")
    return content


def _shape(options: dict[str, Any], path: Path) -> tuple[int, int]:
    shape = options.get("kpt_shape")
    if (
        not isinstance(shape, list)
        or len(shape) != 2
        or type(shape[0]) is not int
        or shape[0] < 1
        or shape[1] not in (2, 3)
    ):
        raise DistilPoseError(f"data.yaml in {path} has no kpt_shape of [joints, 2 or 3]: it is no pose data set.")
    return shape[0], shape[1]


def _kind(options: dict[str, Any], source: Source) -> int:
    """Number of the class to convert."""
    names = options.get("names", {0: "person"})
    names = dict(enumerate(names)) if isinstance(names, list) else names
    names = names if isinstance(names, dict) else {0: "person"}
    fits = [number for number, name in names.items() if source.category in (None, str(name), str(number))]
    if len(fits) != 1 or type(fits[0]) is not int:
        listed = ", ".join(str(name)[:40] for name in list(names.values())[:10])
        raise DistilPoseError(f"data.yaml in {source.path} has the classes {listed}: choose one by --category.")
    source.category = str(names[fits[0]])[:80]
    return fits[0]


def _named(options: dict[str, Any], joints: int, source: Source) -> dict[str, Any]:
    """Joints by kpt_names, a list or one by class."""
    names = options["kpt_names"]
    names = next(iter(names.values()), None) if isinstance(names, dict) else names
    if not isinstance(names, list) or len(names) != joints or not all(isinstance(name, str) for name in names):
        raise DistilPoseError(f"kpt_names in data.yaml of {source.path} must be {joints} names, as kpt_shape says.")
    return {"keypoints": names}


def _add_pairs(category: dict[str, Any], options: dict[str, Any], joints: int, source: Source) -> None:
    """Left-right pairs by flip_idx, where it is there."""
    order = options.get("flip_idx")
    if order is None or "flip_pairs" in category:
        return
    if not isinstance(order, list) or sorted(map(str, order)) != sorted(map(str, range(joints))):
        raise DistilPoseError(f"flip_idx in data.yaml of {source.path} must hold each of 0..{joints - 1} once.")
    if any(order[order[joint]] != joint for joint in range(joints)):
        raise DistilPoseError(f"flip_idx in data.yaml of {source.path} must change joints in pairs.")
    category["flip_pairs"] = [[joint, order[joint]] for joint in range(joints) if joint < order[joint]]


def _persons(
    file: Path, image: str, size: tuple[int, int], form: tuple[int, int, int], source: Source
) -> Iterator[Person]:
    joints, numbers, kind = form
    scale = np.array(size, dtype=np.float64)
    with open(file, encoding="utf-8", errors="replace") as lines:
        for line in lines:
            words = line.split()
            if not words:
                continue
            try:
                row = np.array([float(word) for word in words])
            except ValueError:
                row = np.zeros(0)
            if len(row) != 5 + joints * numbers or not np.isfinite(row).all():
                source.left_out[f"lines without {5 + joints * numbers} numbers"] += 1
                continue
            if row[0] != kind:
                source.left_out["objects of other classes"] += 1
                continue
            points = row[5:].reshape(joints, numbers)
            # without a third number, (0, 0) is what stands for a joint that is not labelled
            seen = points[:, 2:] if numbers == 3 else np.where(points.any(1, keepdims=True), 2.0, 0.0)
            box = np.concatenate([(row[1:3] - row[3:5] / 2) * scale, row[3:5] * scale])
            yield Person(image, np.concatenate([points[:, :2] * scale, np.clip(np.round(seen), 0, 2)], axis=1), box)
