"""CrowdPose: COCO's form with 14 joints, without areas; other COCO keypoint files are completed likewise."""

from __future__ import annotations

from array import array
from typing import Any

import numpy as np

from distilpose.curation.formats.common import Person, Source, is_size, joint_fields, read_foreign_json
from distilpose.curation.rows import is_id
from distilpose.errors import DistilPoseError

NAMES = (
    "left_shoulder", "right_shoulder", "left_elbow", "right_elbow", "left_wrist", "right_wrist", "left_hip",
    "right_hip", "left_knee", "right_knee", "left_ankle", "right_ankle", "head", "neck",
)  # fmt: skip
LIMBS = (
    (12, 13), (13, 0), (13, 1), (0, 2), (2, 4), (1, 3), (3, 5), (0, 6), (1, 7), (6, 7), (6, 8), (8, 10), (7, 9), (9, 11),
)  # fmt: skip


def read(source: Source) -> tuple[list[Person], dict[str, Any]]:
    """The persons and the category of the file."""
    content = read_foreign_json(source.path)
    if not isinstance(content, dict) or not all(
        isinstance(content.get(key), list) for key in ("images", "annotations", "categories")
    ):
        raise DistilPoseError(
            f"{source.path} has no lists 'images', 'annotations' and 'categories': expected CrowdPose's."
        )
    fits = [one for one in content["categories"] if isinstance(one, dict) and _has_joints(one)]
    if source.category is not None:
        fits = [one for one in fits if source.category in (one.get("name"), str(one.get("id")))]
    if len(fits) != 1:
        raise DistilPoseError(f"{source.path} has {len(fits)} categories with joints: choose one by --category.")
    category = joint_fields(fits[0])
    _mend_limbs(category, source)
    images = {one["id"]: one for one in content["images"] if isinstance(one, dict) and is_id(one.get("id"))}
    count = len(category["keypoints"])
    persons = []
    for entry in content["annotations"]:
        if not isinstance(entry, dict) or entry.get("category_id") != fits[0].get("id"):
            source.left_out["annotations of another category"] += 1
            continue
        number, joints, box = entry.get("image_id"), entry.get("keypoints"), entry.get("bbox")
        image = images.get(number, {}) if is_id(number) else {}
        if not isinstance(image.get("file_name"), str):
            source.left_out["persons of images that are not in the file"] += 1
        elif not isinstance(joints, array) or len(joints) != 3 * count:
            source.left_out[f"persons without {3 * count} numbers as 'keypoints'"] += 1
        elif not isinstance(box, list) or len(box) != 4 or not all(map(is_size, box)):
            source.left_out["persons without a box"] += 1
        else:
            rows = np.array(joints).reshape(count, 3)
            area = entry["area"] if is_size(entry.get("area")) else None
            width, height = image.get("width"), image.get("height")
            stated = (width, height) if is_size(width) and is_size(height) and min(width, height) > 0 else None
            crowd = bool(entry.get("iscrowd"))
            persons.append(Person(image["file_name"], rows, np.array(box, dtype=np.float64), area, crowd, stated))
    return persons, category


def _has_joints(category: dict[str, Any]) -> bool:
    names = category.get("keypoints")
    return isinstance(names, list) and bool(names) and all(isinstance(name, str) for name in names)


def _mend_limbs(category: dict[str, Any], source: Source) -> None:
    """Replace limbs of joints that are not there: CrowdPose's own files have 14 joints and the limbs of COCO's 17."""
    limbs, count = category.get("skeleton", []), len(category["keypoints"])
    if not isinstance(limbs, list):
        limbs = [limbs]
    fits = [limb for limb in limbs if isinstance(limb, list) and len(limb) == 2 and all(
        type(joint) is int and 1 <= joint <= count for joint in limb)]  # fmt: skip
    if len(fits) == len(limbs):
        return
    if tuple(category["keypoints"]) == NAMES:
        category["skeleton"] = [[a + 1, b + 1] for a, b in LIMBS]
        source.notes.append("The file's limbs are those of COCO's 17 joints: replaced by those of CrowdPose's 14.")
    else:
        category["skeleton"] = fits
        source.notes.append(f"{len(limbs) - len(fits)} of {len(limbs)} limbs join joints that are not there: dropped.")
