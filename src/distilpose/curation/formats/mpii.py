"""MPII Human Pose: the .mat file of the release, and the .json files of the authors of HRNet."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from distilpose.curation.conversion.coco import box_around
from distilpose.curation.conversion.matlab import read_mat
from distilpose.curation.conversion.source import Person, Source, category_of, is_size
from distilpose.curation.parsing import parsing, read_json, validated
from distilpose.skeleton import Skeleton

NAMES = (
    "right_ankle", "right_knee", "right_hip", "left_hip", "left_knee", "left_ankle", "pelvis", "thorax", "neck",
    "head_top", "right_wrist", "right_elbow", "right_shoulder", "left_shoulder", "left_elbow", "left_wrist",
)  # fmt: skip
LIMBS = (
    (0, 1), (1, 2), (2, 6), (6, 3), (3, 4), (4, 5), (6, 7), (7, 8), (8, 9), (10, 11), (11, 12), (12, 7), (7, 13),
    (13, 14), (14, 15),
)  # fmt: skip


def read(source: Source) -> tuple[list[Person], dict[str, Any]]:
    """Persons with joints. Both files count pixels from 1, COCO from 0. Boxes enclose the joints and the head."""
    persons = list(_of_mat(source) if source.path.suffix.lower() == ".mat" else _of_json(source))
    return persons, category_of(Skeleton.from_names(NAMES, LIMBS))


def _of_mat(source: Source) -> Iterator[Person]:
    release = read_mat(source.path, "RELEASE")
    with parsing(source.path, "MPII's release"):
        entries, training = release[0, 0].annolist.ravel(), release[0, 0].img_train.ravel()
    for entry, train in zip(entries, training, strict=False):
        image = _text(_first(getattr(entry, "image", None), "name"))
        rects = getattr(entry, "annorect", None)
        for rect in rects.ravel() if isinstance(rects, np.ndarray) else ():
            joints = _points(_first(getattr(rect, "annopoints", None), "point"))
            if image is None:
                source.skip("persons without an image name")
            elif joints is not None and joints[:, 2].any():
                yield Person(image, joints, _box(joints, rect))
            elif _number(train) == 1:
                source.skip("training persons without joints")
            else:
                source.skip("persons without joints (test images, or not annotated)")


def _first(value: Any, name: str) -> Any:
    """An attribute of a structure, or of the first structure of an array."""
    if isinstance(value, np.ndarray):
        value = value.ravel()[0] if value.size else None
    return getattr(value, name, None)


def _text(value: Any) -> str | None:
    value = value.ravel()[0] if isinstance(value, np.ndarray) and value.size else value
    return str(value) if isinstance(value, str) and value else None


def _number(value: Any) -> float:
    """A number. The release writes it as a 1 x 1 array, as text, or as an empty array (NaN)."""
    try:
        return float(np.asarray(value).ravel()[0])
    except (IndexError, TypeError, ValueError):
        return float("nan")


def _points(points: Any) -> np.ndarray | None:
    """(16, 3) joints from structures of x, y, id and is_visible. The two of the head lack is_visible and count as visible."""
    if not isinstance(points, np.ndarray):
        return None
    joints = np.zeros((len(NAMES), 3))
    for point in points.ravel():
        x, y, index = (_number(getattr(point, key, None)) for key in ("x", "y", "id"))
        if index in range(len(NAMES)) and is_size(x) and is_size(y):
            hidden = _number(getattr(point, "is_visible", None)) == 0
            joints[int(index)] = x - 1, y - 1, 1 if hidden else 2
    return joints


def _box(joints: np.ndarray, rect: Any) -> np.ndarray:
    """Box around the joints and the head's box, with a margin of a tenth on each side."""
    visible = joints[joints[:, 2] > 0, :2]
    head = np.array([[_number(getattr(rect, f"{axis}{end}", None)) - 1 for axis in "xy"] for end in (1, 2)])
    visible = np.concatenate([visible, head]) if all(map(is_size, head.ravel().tolist())) else visible
    return box_around(visible)


def _of_json(source: Source) -> Iterator[Person]:
    for row in validated(list[Any], read_json(source.path), source.path):
        try:
            image = row["image"]
            places = np.array(row["joints"], dtype=np.float64).reshape(len(NAMES), 2) - 1
            visible = np.array(row["joints_vis"], dtype=np.float64).reshape(len(NAMES)) > 0
            if not all(map(is_size, places[visible].ravel().tolist())):
                raise ValueError
        except (TypeError, KeyError, ValueError, OverflowError):
            source.skip("persons without 16 'joints' and 'joints_vis' (test images have none)")
            continue
        if not isinstance(image, str) or not visible.any():
            source.skip("persons without visible joints")
            continue
        joints = np.concatenate([places, np.where(visible, 2.0, 0.0)[:, None]], axis=1)
        yield Person(image, joints, _box(joints, None))
