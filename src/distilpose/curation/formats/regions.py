"""Points and boxes drawn one by one in a labelling tool, made into persons."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distilpose.curation.formats.common import Person, Source, category_of
from distilpose.skeleton import COCO


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
    """What is drawn on one image."""

    image: str
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
    groups: dict[Any, list[Point]] = defaultdict(list)
    boxes = {box.group if box.group is not None else place: box for place, box in enumerate(drawn.boxes)}
    for point in drawn.points:
        groups[point.group if point.group is not None else _box_around(point, boxes)].append(point)
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
        persons.append(Person(drawn.image, joints, boxes[key].values if key in boxes else None))
    return persons


def _box_around(point: Point, boxes: dict[Any, Box]) -> Any:
    """Key of the smallest box that holds the point, or None."""
    inside = {}
    for key, box in boxes.items():
        x, y, width, height = box.values.tolist()
        if x <= point.x <= x + width and y <= point.y <= y + height:
            inside[key] = width * height
    return min(inside, key=lambda key: inside[key], default=None)
