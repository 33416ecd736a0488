"""Input and output of every format: the source with the options of the conversion, and the persons."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np
from numpy.typing import NDArray

from distilpose.curation.parsing import read_json, skeleton_of
from distilpose.errors import DistilPoseError
from distilpose.skeleton import Skeleton

MAX_VALUE = 1e9  # no coordinate, size or area of a photograph is larger; larger numbers can overflow


@dataclass
class Person:
    """One person of a source.

    Attributes:
        image: file name, relative to the image folder.
        joints: (K, 3) x, y in pixels of the image and visibility v (0 not labelled, 1 hidden, 2 visible).
        box: x, y, width, height in pixels; None if the format has none.
        area: square pixels; None if the format has none.
        crowd: whether it is a crowd.
        size: width and height of the image in pixels as the source states them; None if it does not.
    """

    image: str
    joints: NDArray[np.float64]
    box: NDArray[np.float64] | None = None
    area: float | None = None
    crowd: bool = False
    size: tuple[float, float] | None = None


@dataclass
class Source:
    """Labels to convert, options of the conversion, and its report.

    Attributes:
        path: file or folder of the labels.
        images: folder of the images.
        skeleton: COCO category that overrides the joints of the source.
        category: name, or number, of the category to convert, if there are several.
        split: split to convert, if there are several.
        box_labels: labels of the rectangles that are persons' boxes.
        image_tags: for the <Image> tags of Label Studio the key of their image in the tasks' data.
        skipped: count of each reason to skip something.
        examples: first example of some reasons.
        notes: lines of the report on choices of the conversion.
    """

    path: Path
    images: Path
    skeleton: Mapping[str, Any] | None = None
    category: str | None = None
    split: str | None = None
    box_labels: tuple[str, ...] = ()
    image_tags: Mapping[str, str] = field(default_factory=dict)
    skipped: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def skip(self, reason: str, count: int = 1, example: str = "") -> None:
        """Count something that is skipped, and keep the first example of each reason."""
        self.skipped[reason] += count
        if example:
            self.examples.setdefault(reason, example)

    def reasons(self) -> list[str]:
        """The skipped things: a phrase for each reason."""
        return [
            f"{count} {reason}" + (f" (first: {self.examples[reason]})" if reason in self.examples else "")
            for reason, count in self.skipped.items()
        ]

    def check_split(self, known: Collection[str]) -> None:
        """Check the split that was chosen.

        Raises:
            DistilPoseError: the source has no such split.
        """
        if self.split is not None and self.split not in known:
            choices = f"choose from {quoted(known)}" if known else "the source has no splits, leave the option out"
            raise DistilPoseError(f"--split {self.split[:40]!r} is not a split of {self.path}: {choices}.")

    def category_of_count(self, count: int) -> dict[str, Any]:
        """Category for joints without names: from --skeleton, COCO's for 17 joints, otherwise with numbered joints.

        Raises:
            DistilPoseError: --skeleton has another number of joints.
        """
        if self.skeleton is not None:
            listed = len(self.skeleton["keypoints"])
            if listed != count:
                raise DistilPoseError(f"--skeleton has {listed} joints, but {self.path} has {count}: list all of them.")
            return dict(self.skeleton)
        if count == 17:
            self.notes.append(
                "17 joints without names: used as COCO's, nose to right ankle (give --skeleton if they are not)."
            )
        else:
            self.notes.append(f"{count} joints without names: named joint_0 and so on (give --skeleton to name them).")
        return category_of(Skeleton.unnamed(count))


def quoted(names: Collection[str]) -> str:
    """The first few names for a message, sorted and shortened."""
    return ", ".join(repr(name[:40]) for name in sorted(names)[:10])


def category_of(skeleton: Skeleton) -> dict[str, Any]:
    """COCO category of a skeleton."""
    return {"keypoints": list(skeleton.names), "skeleton": [[a + 1, b + 1] for a, b in skeleton.limbs]}


def read_skeleton(path: Path) -> dict[str, Any]:
    """Joints of a JSON file: a COCO category, or an annotation file with one category that has keypoints.

    Raises:
        DistilPoseError: the file has no such category.
    """
    content = read_json(path)
    if isinstance(content, dict) and isinstance(content.get("categories"), list):
        matches = [entry for entry in content["categories"] if isinstance(entry, dict) and entry.get("keypoints")]
        content = matches[0] if len(matches) == 1 else None
    if not isinstance(content, dict) or not isinstance(content.get("keypoints"), list):
        raise DistilPoseError(f"--skeleton {path} has no list 'keypoints': give one COCO category as JSON.")
    category = joint_fields(content)
    skeleton_of(category, path)
    return category


def joint_fields(category: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of a COCO category about joints. Empty 'flip_pairs' are kept: they state that there are no pairs."""
    fields = {key: category.get(key) for key in ("keypoints", "skeleton", "flip_pairs", "OKS_sigmas")}
    return {key: value for key, value in fields.items() if value or (key == "flip_pairs" and value is not None)}


def is_size(value: Any) -> TypeGuard[float]:
    """Whether a value is a number that can be a coordinate, a length or an area of a photograph."""
    return type(value) in (int, float) and abs(value) < MAX_VALUE
