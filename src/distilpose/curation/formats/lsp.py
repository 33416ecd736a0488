"""Leeds Sports Pose (joints is 3 x 14 x N) and its extended training set (14 x 3 x N)."""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from distilpose.curation.conversion.matlab import read_mat
from distilpose.curation.conversion.source import Person, Source, category_of
from distilpose.curation.image_files import image_names
from distilpose.errors import DistilPoseError
from distilpose.skeleton import Skeleton

NAMES = (
    "right_ankle", "right_knee", "right_hip", "left_hip", "left_knee", "left_ankle", "right_wrist", "right_elbow",
    "right_shoulder", "left_shoulder", "left_elbow", "left_wrist", "neck", "head_top",
)  # fmt: skip
LIMBS = ((0, 1), (1, 2), (2, 3), (3, 4), (4, 5), (6, 7), (7, 8), (8, 9), (9, 10), (10, 11), (8, 12), (9, 12), (12, 13))


def read(source: Source) -> tuple[list[Person], dict[str, Any]]:
    """Persons, one per image. The number in the name of the image, such as im0001.jpg, is the index of its joints from 1.

    The third value of a joint means *hidden* in the first set, where all joints are labelled. It means *visible* in the
    extended set, where the other joints are not labelled.
    """
    joints = read_mat(source.path, "joints")
    joints = joints[..., None] if joints.ndim == 2 else joints
    if joints.ndim != 3 or joints.dtype.kind not in "iuf" or joints.shape[:2] not in ((3, 14), (14, 3)):
        raise DistilPoseError(
            f"'joints' in {source.path} is {' x '.join(map(str, joints.shape))}: expected 3 x 14 x N (Leeds Sports) or "
            "14 x 3 x N (extended)."
        )
    extended = joints.shape[:2] == (14, 3)
    rows = np.array(joints.transpose(2, 0, 1) if extended else joints.transpose(2, 1, 0), dtype=np.float64)
    flagged = rows[..., 2] > 0.5
    rows[..., 2] = np.where(flagged, 2, 0) if extended else np.where(flagged, 1, 2)
    source.notes.append(
        "Leeds Sports extended: joints marked invisible are not labelled."
        if extended
        else "Leeds Sports: joints marked as hidden are labelled with v = 1."
    )
    images: dict[int, str] = {}
    for name in image_names(source.images):
        match = re.fullmatch(r"im(\d{4,6})\.\w+", name.rpartition("/")[2])
        if match and (other := images.setdefault(int(match[1]), name)) != name:
            raise DistilPoseError(
                f"{source.images} holds {other} and {name}, both number {int(match[1])}: give --images the folder that "
                "holds only the photographs of the set."
            )
    persons = [Person(images[number], row) for number, row in enumerate(rows, start=1) if number in images]
    if len(persons) < len(rows):
        source.skip("persons of images that are missing", len(rows) - len(persons))
    return persons, category_of(Skeleton.from_names(NAMES, LIMBS))
