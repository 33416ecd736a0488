"""Points and boxes drawn one by one in a labelling tool, made into persons."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distilpose.curation.formats.common import Person, Source, refuse_many_joints
from distilpose.errors import DistilPoseError
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
    """A person's box: x, y, width, height in pixels, what its joints are grouped by, and its label."""

    values: NDArray[np.float64]
    group: str | None = None
    label: str = ""


@dataclass
class Drawn:
    """What is drawn on one image, and its width and height in pixels as the source states them."""

    image: str
    size: tuple[float, float] | None = None
    points: list[Point] = field(default_factory=list)
    boxes: list[Box] = field(default_factory=list)


def category_of_names(source: Source, used: set[str]) -> dict[str, Any]:
    """The joints: those of --skeleton; of COCO's those that occur, if no others do; else the names in alphabetical order.

    COCO's joints that nobody labelled are left out, as a network learns nothing of them.
    """
    if source.skeleton is not None:
        return dict(source.skeleton)
    if not used or not used <= set(COCO.names):
        source.notes.append(
            f"{len(used)} joints in alphabetical order, without limbs: give --skeleton to set both, the same for all splits."
        )
        return {"keypoints": sorted(used)}
    if len(used) < len(COCO.names):
        source.notes.append(
            f"{len(used)} of COCO's {len(COCO.names)} joints are labelled and were taken, in COCO's order: give --skeleton "
            "for others, and the same for all exports that are trained on or compared."
        )
    names = [name for name in COCO.names if name in used]
    limbs = [(COCO.names[a], COCO.names[b]) for a, b in COCO.limbs]
    return {
        "keypoints": names,
        "skeleton": [[names.index(a) + 1, names.index(b) + 1] for a, b in limbs if {a, b} <= used],
    }


def choose_boxes(images: Sequence[Drawn], source: Source) -> None:
    """Keep the boxes of persons: those of --box-label; without it all, if they have one label.

    Raises:
        DistilPoseError: they have several labels and none was named, or no box has a label that was named.
    """
    labels = sorted({box.label for drawn in images for box in drawn.boxes})
    listed = ", ".join(repr(label[:40]) for label in labels[:10])
    if not source.box_labels:
        if len(labels) > 1:
            raise DistilPoseError(
                f"{source.path} has rectangles of the labels {listed}: name by --box-label those that are persons' boxes."
            )
        return
    if not set(labels) & set(source.box_labels):
        raise DistilPoseError(
            f"--box-label {', '.join(source.box_labels)} is the label of no rectangle in {source.path}: "
            f"{f'choose of {listed}' if labels else 'leave it out'}."
        )
    for drawn in images:
        kept = [box for box in drawn.boxes if box.label in source.box_labels]
        if len(kept) < len(drawn.boxes):
            source.left_out["rectangles of other labels than --box-label"] += len(drawn.boxes) - len(kept)
        drawn.boxes = kept


def persons_of_all(images: Sequence[Drawn], names: Sequence[str], source: Source) -> list[Person]:
    """The persons of all images; a note tells which rectangles were taken as their boxes."""
    persons = [person for drawn in images for person in persons_of(drawn, names, source)]
    boxed = [person for person in persons if person.box is not None]
    if boxed:
        labels = sorted({box.label for drawn in images for box in drawn.boxes})
        without = sum(not person.joints[:, 2].any() for person in boxed)
        source.notes.append(
            f"{len(boxed)} rectangles labelled {', '.join(repr(label[:40]) for label in labels[:10])} were taken as "
            f"persons' boxes, {without} of them without joints."
        )
    return persons


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


def smallest_around(
    places: NDArray[np.float64], boxes: NDArray[np.float64], slack: float = 0.0, share: float = 1.0
) -> int | None:
    """Place of the smallest of (B, 4) boxes that holds that share of (N, 2) places, some pixels outside it too, or None."""
    lowest, highest = boxes[:, :2] - slack, boxes[:, :2] + boxes[:, 2:] + slack
    if share == 1:
        inside = ((lowest <= places.min(0)) & (places.max(0) <= highest)).all(1)
    else:
        inside = ((lowest[:, None] <= places) & (places <= highest[:, None])).all(2).mean(1) >= share
    return int(np.where(inside, boxes[:, 2:].prod(1), np.inf).argmin()) if inside.any() else None
