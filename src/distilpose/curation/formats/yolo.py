"""YOLO-pose: data.yaml and one text file per image, with coordinates divided by the image's size."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import yaml
from annotated_types import Ge, Le
from pydantic import BaseModel, StrictInt, StrictStr

from distilpose.curation.conversion.image_lookup import image_size
from distilpose.curation.conversion.source import Person, Source
from distilpose.curation.formats.yolo_files import LabelFiles
from distilpose.curation.image_files import image_names
from distilpose.curation.parsing import MAX_JOINTS, parsing, skeleton_of, validated
from distilpose.errors import DistilPoseError
from distilpose.files import natural_key
from distilpose.skeleton import Skeleton

_MAX_COORDINATE = 1e6  # multiples of the image's side; larger numbers can overflow

Number = Annotated[StrictInt, Ge(0), Le(10**9)]
Name = StrictStr | Number


class Settings(BaseModel):
    """Settings of data.yaml.

    Attributes:
        kpt_shape: number of joints, and number of values per joint (2: x, y; 3: x, y, v).
        names: names of the classes, by their number.
        kpt_names: names of the joints, or a list of them for each class number.
        flip_idx: for each joint the index of its left-right counterpart.
    """

    kpt_shape: tuple[Annotated[StrictInt, Ge(1), Le(MAX_JOINTS)], Literal[2, 3]]
    names: list[Name] | dict[Number, Name] = ["person"]
    kpt_names: Any = None
    flip_idx: list[Number] | None = None

    def classes(self) -> dict[int, str]:
        """Names of the classes by number."""
        pairs = enumerate(self.names) if isinstance(self.names, list) else self.names.items()
        return {number: str(name) for number, name in pairs}


def read(source: Source) -> tuple[list[Person], dict[str, Any]]:
    """Persons of all images below --images that have labels in the folder."""
    file, root = _find_settings(source.path)
    with parsing(file, "YAML"):
        content = yaml.load(file.read_text(encoding="utf-8"), _NoAliases)
    settings = validated(Settings, content, file)
    kind, name = _choose_class(settings.classes(), file, source)
    category = {"name": name, **_category(settings, kind, file, source)}
    labels = LabelFiles(root, source.images, source.split)
    source.check_split(labels.splits())
    chosen = labels.chosen()
    persons: list[Person] = []
    names = sorted(image_names(source.images), key=natural_key)
    files = labels.of(names)
    used = set()
    for image in names:
        labelled = files.get(image)
        if labelled not in chosen:
            source.skip("images without labels" if labelled is None else "images of other splits")
            continue
        used.add(labelled)
        size = image_size(source, image, "images")
        if size is not None:
            persons += _persons(labelled, image, size, settings.kpt_shape, kind, source)
    if len(used) < len(chosen):
        source.skip("files of labels without an image in --images", len(chosen) - len(used))
    return persons, category


class _NoAliases(yaml.SafeLoader):
    """A YAML loader that rejects aliases, which can expand a few lines to gigabytes."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        """Compose the next node."""
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("it has aliases, which are not supported")
        return super().compose_node(parent, index)


def _find_settings(folder: Path) -> tuple[Path, Path]:
    """data.yaml, and the root of the labels: its folder, or the source folder if that folder has no labels."""
    if folder.is_file():
        return folder, folder.parent
    files = sorted([*folder.rglob("*.yaml"), *folder.rglob("*.yml")])
    files = [path for path in files if path.name == "data.yaml"] or files
    if len(files) != 1:
        raise DistilPoseError(f"{folder} holds {len(files)} YAML files: give the one with 'kpt_shape'.")
    return files[0], files[0].parent if any(files[0].parent.rglob("*.txt")) else folder


def _choose_class(classes: dict[int, str], file: Path, source: Source) -> tuple[int, str]:
    """Number and name of the class to convert."""
    matches = [number for number, name in classes.items() if source.category in (None, name, str(number))]
    if len(matches) != 1:
        listed = ", ".join(name[:40] for name in list(classes.values())[:10])
        raise DistilPoseError(f"{file} has the classes {listed}: choose one by --category.")
    return matches[0], classes[matches[0]][:80]


def _category(settings: Settings, kind: int, file: Path, source: Source) -> dict[str, Any]:
    """Joints from --skeleton or kpt_names, and left-right pairs from flip_idx."""
    count, names, order = settings.kpt_shape[0], settings.kpt_names, settings.flip_idx
    if source.skeleton is not None or not names:
        category = source.category_of_count(count)
    else:
        names = validated(list[StrictStr], names.get(kind) if isinstance(names, dict) else names, file)
        if len(names) != count:
            raise DistilPoseError(
                f"{file} has {len(names)} kpt_names for class {kind}: expected {count}, as in kpt_shape."
            )
        category = {"keypoints": names}
    if order is not None and "flip_pairs" not in category:
        if sorted(order) != list(range(count)) or any(order[order[joint]] != joint for joint in range(count)):
            raise DistilPoseError(
                f"flip_idx={order} in {file} must hold each of 0..{count - 1} once, and swap in pairs."
            )
        category["flip_pairs"] = [[joint, order[joint]] for joint in range(count) if joint < order[joint]]
        named = Skeleton.from_names(category["keypoints"]).flip_pairs
        if named and not category["flip_pairs"]:  # what tools write that know no pairs
            source.notes.append(f"flip_idx pairs no joints: the {len(named)} pairs of the joints' names are written.")
        elif not names and source.skeleton is None and named:
            _check_assumed(category, file)
    return category


def _check_assumed(category: dict[str, Any], file: Path) -> None:
    """Check that joints without names, taken as COCO's, have COCO's pairs."""
    try:
        skeleton_of(category, file)
    except DistilPoseError:
        raise DistilPoseError(
            f"{file} names no joints, and its flip_idx contradicts COCO's order of {len(category['keypoints'])} joints: give "
            "kpt_names in the file, or --skeleton."
        ) from None


def _persons(
    file: Path, image: str, size: tuple[int, int], shape: tuple[int, int], kind: int, source: Source
) -> Iterator[Person]:
    """Persons of one label file, one per line: class, box (centre, width, height) and joints."""
    scale, length = np.array(size, dtype=np.float64), 5 + shape[0] * shape[1]
    with open(file, encoding="utf-8-sig", errors="replace") as lines:
        for line in filter(str.strip, lines):
            try:
                row = np.array([float(word) for word in line.split()])
            except ValueError:
                row = np.zeros(0)
            if len(row) != length or not (np.abs(row) < _MAX_COORDINATE).all():
                source.skip(f"lines without {length} numbers")
                continue
            if row[0] != kind:
                source.skip("objects of other classes")
                continue
            points = row[5:].reshape(shape)
            # without a third value, (0, 0) is a joint without a label
            visible = points[:, 2:] if shape[1] == 3 else np.where(points.any(1, keepdims=True), 2.0, 0.0)
            if odd := int((~np.isin(visible, (0, 1, 2))).sum()):
                source.skip("joints with scores as visibility: rounded, so those below 0.5 are not labelled", odd)
            box = np.concatenate([(row[1:3] - row[3:5] / 2) * scale, row[3:5] * scale])
            yield Person(image, np.concatenate([points[:, :2] * scale, np.clip(np.round(visible), 0, 2)], axis=1), box)
