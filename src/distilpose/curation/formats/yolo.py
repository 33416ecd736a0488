"""YOLO-pose: data.yaml and a text file an image, in shares of the image's size."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from distilpose.curation.formats.common import Person, Source, image_names, refuse_many_joints
from distilpose.curation.formats.yolo_files import LabelFiles
from distilpose.curation.image_files import find_inside, read_header
from distilpose.errors import DistilPoseError

_LARGEST_YAML = 2**20
_LARGEST_SHARE = 1e6  # of an image's side; what is larger can overflow


def read(source: Source) -> tuple[list[Person], dict[str, Any]]:
    """The persons of all images below --images whose labels lie in the folder."""
    options, root = _read_yaml(source.path)
    joints, numbers = _shape(options, source.path)
    kind = _kind(_classes(options, source.path), source)
    unnamed = source.skeleton is not None or not options.get("kpt_names")
    category = source.joints(joints) if unnamed else _named(options, joints, kind, source)
    _add_pairs(category, options, joints, source)
    labels = LabelFiles(root, source.images, source.split)
    source.refuse_unknown_split(labels.splits())
    unused = labels.chosen()
    chosen = frozenset(unused)
    persons: list[Person] = []
    names = sorted(image_names(source.images))
    files = labels.of(names)
    for name in names:
        file = files.get(name)
        if file not in chosen:
            source.left_out["images without labels" if file is None else "images of other splits"] += 1
            continue
        unused.discard(file)
        try:
            size = read_header(find_inside(source.images, name)).shown
        except (OSError, ValueError):
            source.left_out["images that cannot be read, are too large or lie elsewhere"] += 1
            continue
        persons += _persons(file, name, size, (joints, numbers, kind), source)
    if unused:
        source.left_out["files of labels without an image in --images"] += len(unused)
    return persons, category


class _Plain(yaml.SafeLoader):
    """YAML without aliases, by which a few lines can grow to gigabytes."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        """The next node."""
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("it has aliases, which are not read")
        return super().compose_node(parent, index)


def _read_yaml(folder: Path) -> tuple[dict[str, Any], Path]:
    """The content of data.yaml, and the root of the set: its folder, or the one given where labels lie outside of it."""
    found = sorted([*folder.rglob("*.yaml"), *folder.rglob("*.yml")])
    found = [path for path in found if path.name == "data.yaml"] or found
    if len(found) != 1:
        raise DistilPoseError(f"{folder} holds {len(found)} YAML files: expected one data.yaml with 'kpt_shape'.")
    if found[0].stat().st_size > _LARGEST_YAML:
        raise DistilPoseError(
            f"{found[0]} is larger than {_LARGEST_YAML >> 20} MiB: expected a data.yaml of a few lines."
        )
    try:
        content = yaml.load(found[0].read_text(encoding="utf-8"), _Plain)
    except Exception as error:  # values that do not fit their tags make PyYAML fail in any way
        raise DistilPoseError(f"{found[0]} is no YAML ({' '.join(str(error).split())[:120]}).") from None
    if not isinstance(content, dict):
        raise DistilPoseError(f"{found[0]} holds no settings: expected 'kpt_shape' and 'names'.")
    return content, found[0].parent if any(found[0].parent.rglob("*.txt")) else folder


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
    refuse_many_joints(shape[0], path)
    return shape[0], shape[1]


def _classes(options: dict[str, Any], path: Path) -> dict[int, str]:
    """Names of the classes by their number."""
    names = options.get("names", ["person"])
    names = dict(enumerate(names)) if isinstance(names, list) else names
    if not isinstance(names, dict) or not all(_is_number(one) for one in names) or not all(
        isinstance(name, str) or _is_number(name) for name in names.values()
    ):  # fmt: skip
        raise DistilPoseError(f"names in data.yaml of {path} must be a list of names, or names by number.")
    return {number: str(name) for number, name in names.items()}


def _is_number(value: Any) -> bool:
    return type(value) is int and 0 <= value < 10**9


def _kind(names: dict[int, str], source: Source) -> int:
    """Number of the class to convert."""
    fits = [number for number, name in names.items() if source.category in (None, name, str(number))]
    if len(fits) != 1:
        listed = ", ".join(name[:40] for name in list(names.values())[:10])
        raise DistilPoseError(f"data.yaml in {source.path} has the classes {listed}: choose one by --category.")
    source.category = names[fits[0]][:80]
    return fits[0]


def _named(options: dict[str, Any], joints: int, kind: int, source: Source) -> dict[str, Any]:
    """Joints by kpt_names, a list or one by class."""
    names = options["kpt_names"]
    names = names.get(kind) if isinstance(names, dict) else names
    if not isinstance(names, list) or len(names) != joints or not all(isinstance(name, str) for name in names):
        raise DistilPoseError(
            f"kpt_names in data.yaml of {source.path} must be {joints} names for class {kind}, as kpt_shape says."
        )
    return {"keypoints": names}


def _add_pairs(category: dict[str, Any], options: dict[str, Any], joints: int, source: Source) -> None:
    """Left-right pairs by flip_idx, where it is there."""
    order = options.get("flip_idx")
    if order is None or "flip_pairs" in category:
        return
    if not isinstance(order, list) or not all(map(_is_number, order)) or sorted(order) != list(range(joints)):
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
            if len(row) != 5 + joints * numbers or not (np.abs(row) < _LARGEST_SHARE).all():
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
