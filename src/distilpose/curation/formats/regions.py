"""Points and boxes drawn one by one in a labelling tool, made into persons."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distilpose.curation.formats.common import Person, Source, category_of, refuse_many_joints
from distilpose.skeleton import COCO

MOST_PAIRS = 10_000_000  # of a point and a box, of which an image with more takes seconds


@dataclass
class Point:
    """A joint: its name, pixels, v, and what says whose it is (None where nothing does)."""

    name: str
    x: float
    y: float
    v: int = 2
    group: str | None = None


@dataclass
class Box:
    """A person's box: x, y, width, height in pixels, and what its joints are grouped by."""

    values: NDArray[np.float64]
    group: str | None = None


@dataclass
class Drawn:
    """What is drawn on one image, and its width and height in pixels as the source states them."""

    image: str
    size: tuple[float, float] | None = None
    points: list[Point] = field(default_factory=list)
    boxes: list[Box] = field(default_factory=list)


def category_of_names(source: Source, used: set[str]) -> dict[str, Any]:
    """The joints: those of --skeleton, COCO's if all are its, else the names in alphabetical order."""
    if source.skeleton is not None:
        return dict(source.skeleton)
    if used and used <= set(COCO.names):
        return category_of(COCO)
    source.notes.append(
        f"{len(used)} joints in alphabetical order, without limbs: give --skeleton to set both, the same for all splits."
    )
    return {"keypoints": sorted(used)}


def persons_of(drawn: Drawn, names: Sequence[str], source: Source) -> list[Person]:
    """Persons by their group; joints without one belong to the smallest box around them, or to the only person."""
    refuse_many_joints(len(names), source.path)
    if len(drawn.points) * len(drawn.boxes) > MOST_PAIRS:
        source.left_out["images with thousands of boxes and points"] += 1
        return []
    groups: dict[Any, list[Point]] = defaultdict(list)
    boxes: dict[Any, Box] = {}
    for place, box in enumerate(drawn.boxes):
        if boxes.setdefault(place if box.group is None else box.group, box) is not box:
            source.left_out["further boxes of a group, after its first"] += 1
    keys, values = list(boxes), np.array([box.values for box in boxes.values()]).reshape(-1, 4)
    for point in drawn.points:
        if point.group is None:
            inside = smallest_around(np.array([[point.x, point.y]]), values)
            groups[None if inside is None else keys[inside]].append(point)
        else:
            groups[point.group].append(point)
    loose = groups.pop(None, [])
    if loose and not boxes and not groups and len({point.name for point in loose}) == len(loose):
        groups["the only person"] = loose
    elif loose:
        source.left_out["joints that belong to nobody (no group, no box around them)"] += len(loose)
    persons = []
    for key in list(dict.fromkeys([*boxes, *groups])):
        joints = np.zeros((len(names), 3))
        for point in groups.get(key, []):
            if point.name not in names:
                source.left_out["joints whose name is not in the skeleton"] += 1
            elif joints[names.index(point.name), 2]:
                source.left_out["joints drawn twice for one person"] += 1
            else:
                joints[names.index(point.name)] = point.x, point.y, point.v
        persons.append(Person(drawn.image, joints, boxes[key].values if key in boxes else None, size=drawn.size))
    return persons


def smallest_around(places: NDArray[np.float64], boxes: NDArray[np.float64], slack: float = 0.0) -> int | None:
    """Place of the smallest of (B, 4) boxes that holds all (N, 2) places, some pixels outside it too, or None."""
    lowest, highest = boxes[:, :2] - slack, boxes[:, :2] + boxes[:, 2:] + slack
    inside = ((lowest <= places.min(0)) & (places.max(0) <= highest)).all(1)
    return int(np.where(inside, boxes[:, 2:].prod(1), np.inf).argmin()) if inside.any() else None
