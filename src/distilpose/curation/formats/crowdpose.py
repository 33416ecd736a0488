"""CrowdPose: COCO's form with 14 joints, without areas; other COCO keypoint files are completed likewise."""

from __future__ import annotations

from array import array
from typing import Any

import numpy as np

from distilpose.curation.formats.common import Person, Source, read_foreign_json
from distilpose.errors import DistilPoseError


def read(source: Source) -> tuple[list[Person], dict[str, Any]]:
    """The persons and the category of the file."""
    content = read_foreign_json(source.path)
    if not isinstance(content, dict) or not all(
        isinstance(content.get(key), list) for key in ("images", "annotations", "categories")
    ):
        raise DistilPoseError(
            f"{source.path} has no lists 'images', 'annotations' and 'categories': expected CrowdPose's."
        )
    fits = [one for one in content["categories"] if isinstance(one, dict) and isinstance(one.get("keypoints"), list)]
    if source.category is not None:
        fits = [one for one in fits if one.get("name") == source.category]
    if len(fits) != 1:
        raise DistilPoseError(f"{source.path} has {len(fits)} categories with joints: choose one by --category.")
    category = {key: fits[0][key] for key in ("keypoints", "skeleton", "flip_pairs", "OKS_sigmas") if fits[0].get(key)}
    names = {one.get("id"): one.get("file_name") for one in content["images"] if isinstance(one, dict)}
    count = len(category["keypoints"])
    persons = []
    for entry in content["annotations"]:
        if not isinstance(entry, dict) or entry.get("category_id") != fits[0].get("id"):
            source.left_out["annotations of another category"] += 1
            continue
        image, joints, box = names.get(entry.get("image_id")), entry.get("keypoints"), entry.get("bbox")
        if not isinstance(image, str):
            source.left_out["persons of images that are not in the file"] += 1
        elif not isinstance(joints, array) or len(joints) != 3 * count:
            source.left_out[f"persons without {3 * count} numbers as 'keypoints'"] += 1
        elif not isinstance(box, list) or len(box) != 4 or not all(type(x) in (int, float) for x in box):
            source.left_out["persons without a box"] += 1
        else:
            rows = np.array(joints).reshape(count, 3)
            area = entry.get("area") if type(entry.get("area")) in (int, float) else None
            persons.append(Person(image, rows, np.array(box, dtype=np.float64), area, bool(entry.get("iscrowd"))))
    return persons, category
