"""What all formats have in common: persons as they are read, what the user chose, and the files in the folders."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np
from numpy.typing import NDArray

from distilpose.curation.reading import compact
from distilpose.data.annotations import read_json
from distilpose.errors import DistilPoseError
from distilpose.skeleton import Skeleton

MOST_JOINTS = 1000
MOST_PIXELS = 1e9  # no coordinate, size or area of a photograph is larger; a number that is can overflow
SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")


@dataclass
class Person:
    """One person of a foreign file.

    Attributes:
        image: file name, relative to the image folder.
        joints: (K, 3) x, y in pixels of the image and v (0 not labelled, 1 hidden, 2 seen).
        box: x, y, width, height in pixels; None where the format has none.
        area: square pixels, None where the format has none.
        crowd: whether it is a crowd.
        size: width and height of the image in pixels as the source states them; None where it does not.
    """

    image: str
    joints: NDArray[np.float64]
    box: NDArray[np.float64] | None = None
    area: float | None = None
    crowd: bool = False
    size: tuple[float, float] | None = None


@dataclass
class Source:
    """Where to read from, and what the user chose.

    Attributes:
        path: file or folder of the labels.
        images: folder of the images.
        skeleton: a COCO category to take joints from, where given.
        category: name of the kind to convert, where there are several.
        split: part of the set, where it has parts.
        box_labels: labels of the rectangles that are persons' boxes, where they are named.
        left_out: reasons, with how often each applied.
        examples: of some reasons, what it applied to first.
        notes: sentences on choices made.
    """

    path: Path
    images: Path
    skeleton: Mapping[str, Any] | None = None
    category: str | None = None
    split: str | None = None
    box_labels: tuple[str, ...] = ()
    left_out: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def leave_out(self, reason: str, count: int, example: str = "") -> None:
        """Count what is left out, and keep the first example of the reason."""
        self.left_out[reason] += count
        if example:
            self.examples.setdefault(reason, example)

    def reasons(self) -> list[str]:
        """What was left out, a phrase for each reason."""
        return [
            f"{count} {reason}" + (f" (first: {self.examples[reason]})" if reason in self.examples else "")
            for reason, count in self.left_out.items()
        ]

    def refuse_unknown_split(self, known: Collection[str]) -> None:
        """Check the choice against the parts there are.

        Raises:
            DistilPoseError: the part that was chosen is not among them.
        """
        if self.split is None or self.split in known:
            return
        there = ", ".join(repr(part[:40]) for part in sorted(known)[:10])
        way_out = f"choose of {there}" if there else "it has no parts, so leave the option out"
        raise DistilPoseError(f"--split {self.split[:40]!r} is no part of {self.path}: {way_out}.")

    def joints(self, count: int) -> dict[str, Any]:
        """The category given, if it has as many joints; else joints without names.

        Raises:
            DistilPoseError: it has another number of joints, or there are too many.
        """
        refuse_many_joints(count, self.path)
        if self.skeleton is not None:
            names = self.skeleton["keypoints"]
            if len(names) != count:
                raise DistilPoseError(f"--skeleton lists {len(names)} joints, but {self.path} has {count}: list these.")
            return dict(self.skeleton)
        if count == 17:
            self.notes.append("17 joints without names: taken for COCO's, nose to right ankle (else give --skeleton).")
        else:
            self.notes.append(f"{count} joints without names: called joint_0 and so on (give --skeleton to name them).")
        return category_of(Skeleton.unnamed(count))


def category_of(skeleton: Skeleton) -> dict[str, Any]:
    """The COCO category of a skeleton."""
    return {"keypoints": list(skeleton.names), "skeleton": [[a + 1, b + 1] for a, b in skeleton.limbs]}


def read_skeleton(path: Path) -> dict[str, Any]:
    """The joints of a JSON file: a COCO category, or an annotation file with one that has keypoints.

    Raises:
        DistilPoseError: it is no such file.
    """
    content = read_json(path, "Skeleton file", "give a JSON file with 'keypoints' and 'skeleton'")
    if isinstance(content, dict) and isinstance(content.get("categories"), list):
        fits = [entry for entry in content["categories"] if isinstance(entry, dict) and entry.get("keypoints")]
        content = fits[0] if len(fits) == 1 else None
    if not isinstance(content, dict) or not isinstance(content.get("keypoints"), list):
        raise DistilPoseError(f"--skeleton {path} has no list 'keypoints': give a COCO category as JSON.")
    kept = joint_fields(content)
    try:
        Skeleton.from_category(kept)
    except (TypeError, ValueError, OverflowError) as error:
        raise DistilPoseError(f"--skeleton {path} cannot be read: {error}") from None
    return kept


def joint_fields(category: Mapping[str, Any]) -> dict[str, Any]:
    """What a COCO category says of its joints; an empty 'flip_pairs' is kept, for it says that there are none."""
    kept = {key: category.get(key) for key in ("keypoints", "skeleton", "flip_pairs", "OKS_sigmas")}
    return {key: value for key, value in kept.items() if value or (key == "flip_pairs" and value is not None)}


def refuse_many_joints(count: int, path: Path) -> None:
    """Stop before arrays are made for a number of joints that nobody labels.

    Raises:
        DistilPoseError: there are more than MOST_JOINTS.
    """
    if count > MOST_JOINTS:
        raise DistilPoseError(f"{path} lists {count} joints: expected {MOST_JOINTS} or fewer a person.")


def is_size(value: Any) -> TypeGuard[float]:
    """Whether it is a number that a coordinate, a length or an area of a photograph can be."""
    return type(value) in (int, float) and abs(value) < MOST_PIXELS


def read_foreign_json(path: Path) -> Any:
    """The content of a JSON file with its keypoints packed; deep nesting is told in a sentence."""
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"), object_hook=compact)
    except RecursionError:
        raise DistilPoseError(f"{path} is nested too deeply to be read: export it again.") from None
    except ValueError as error:
        raise DistilPoseError(f"{path} is not JSON ({' '.join(str(error).split())[:120]}): export it again.") from None


def image_names(folder: Path) -> Iterator[str]:
    """Names of the images below a folder, relative to it; links to folders are not followed."""
    for root, _, files in os.walk(folder):
        for file in files:
            if file.lower().endswith(SUFFIXES):
                yield (Path(root) / file).relative_to(folder).as_posix()
