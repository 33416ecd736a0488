"""CrowdPose: COCO format with 14 joints and without areas. Other incomplete COCO keypoint files are completed too."""

from __future__ import annotations

from array import array
from collections import Counter
from typing import Any

import numpy as np
from pydantic import BaseModel

from distilpose.curation.conversion.source import Person, Source, is_size, joint_fields
from distilpose.curation.parsing import is_id, read_json, validated
from distilpose.data.units import is_crowd
from distilpose.errors import DistilPoseError

NAMES = (
    "left_shoulder", "right_shoulder", "left_elbow", "right_elbow", "left_wrist", "right_wrist", "left_hip",
    "right_hip", "left_knee", "right_knee", "left_ankle", "right_ankle", "head", "neck",
)  # fmt: skip
LIMBS = (
    (12, 13), (13, 0), (13, 1), (0, 2), (2, 4), (1, 3), (3, 5), (0, 6), (1, 7), (6, 7), (6, 8), (8, 10), (7, 9), (9, 11),
)  # fmt: skip


class _Content(BaseModel):
    images: list[Any]
    annotations: list[Any]
    categories: list[Any]


def read(source: Source) -> tuple[list[Person], dict[str, Any]]:
    """Persons and category of the file."""
    content = validated(_Content, read_json(source.path), source.path)
    matches = [one for one in content.categories if isinstance(one, dict) and _has_joints(one)]
    if source.category is not None:
        matches = [one for one in matches if source.category in (one.get("name"), str(one.get("id")))]
    if len(matches) != 1:
        raise DistilPoseError(f"{source.path} has {len(matches)} categories with joints: choose one by --category.")
    category = joint_fields(matches[0])
    if source.category is not None:  # --category may be the id
        category["name"] = str(matches[0].get("name") or source.category)
    _repair_limbs(category, source)
    known = [one for one in content.images if isinstance(one, dict) and is_id(one.get("id"))]
    images = {one["id"]: one for one in known}
    repeated = {number for number, count in Counter(one["id"] for one in known).items() if count > 1}
    count = len(category["keypoints"])
    persons = []
    for entry in content.annotations:
        if not isinstance(entry, dict) or entry.get("category_id") != matches[0].get("id"):
            source.skip("annotations of another category")
            continue
        number, joints, box = entry.get("image_id"), entry.get("keypoints"), entry.get("bbox")
        image = images.get(number, {}) if is_id(number) else {}
        if is_id(number) and number in repeated:
            source.skip("persons of an image id that several images have", 1, repr(number))
        elif not isinstance(image.get("file_name"), str):
            source.skip("persons of images that are not in the file")
        elif not isinstance(joints, array) or len(joints) != 3 * count:
            source.skip(f"persons without {3 * count} numbers as 'keypoints'")
        elif not isinstance(box, list) or len(box) != 4 or not all(map(is_size, box)):
            source.skip("persons without a box")
        else:
            area = entry["area"] if is_size(entry.get("area")) else None
            width, height = image.get("width"), image.get("height")
            size = (width, height) if is_size(width) and is_size(height) and min(width, height) > 0 else None
            rows, crowd = np.array(joints).reshape(count, 3), is_crowd(entry)
            persons.append(Person(image["file_name"], rows, np.array(box, dtype=np.float64), area, crowd, size))
    return persons, category


def _has_joints(category: dict[str, Any]) -> bool:
    names = category.get("keypoints")
    return isinstance(names, list) and bool(names) and all(isinstance(name, str) for name in names)


def _repair_limbs(category: dict[str, Any], source: Source) -> None:
    """Replace limbs of joints that do not exist: CrowdPose's files have 14 joints, but the limbs of COCO's 17."""
    limbs, joints = category.get("skeleton", []), range(1, len(category["keypoints"]) + 1)
    limbs = limbs if isinstance(limbs, list) else [limbs]
    numbers = [joint for limb in limbs if isinstance(limb, list) for joint in limb if type(joint) is int]
    if numbers and min(numbers) == 0 and max(numbers) < len(joints):
        return  # counted from 0, which the skeleton reads
    valid = [
        limb
        for limb in limbs
        if isinstance(limb, list) and len(limb) == 2 and all(type(joint) is int and joint in joints for joint in limb)
    ]
    if len(valid) == len(limbs):
        return
    if tuple(category["keypoints"]) == NAMES:
        category["skeleton"] = [[a + 1, b + 1] for a, b in LIMBS]
        source.notes.append("The file's limbs are those of COCO's 17 joints: replaced by those of CrowdPose's 14.")
    else:
        category["skeleton"] = valid
        source.notes.append(f"{len(limbs) - len(valid)} of {len(limbs)} limbs have joints that do not exist: dropped.")
