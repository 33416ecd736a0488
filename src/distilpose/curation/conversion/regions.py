"""Persons from the points and boxes that a labelling tool exports one by one."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distilpose.curation.conversion.source import Person, Source, quoted
from distilpose.curation.parsing import MAX_JOINTS
from distilpose.errors import DistilPoseError
from distilpose.skeleton import COCO

MAX_PAIRS = 10_000_000  # pairs of a point and a box on one image; more take seconds


@dataclass
class Point:
    """A joint: name, pixels, visibility, and the group it belongs to (None if the source does not state it)."""

    name: str
    x: float
    y: float
    v: int = 2
    group: str | None = None


@dataclass
class Box:
    """A person's box: x, y, width, height in pixels, the group of its joints, and its label."""

    values: NDArray[np.float64]
    group: str | None = None
    label: str = ""


@dataclass
class Regions:
    """Points and boxes on one image, its width and height in pixels as the source states them, and its task and subset."""

    image: str
    size: tuple[float, float] | None = None
    points: list[Point] = field(default_factory=list)
    boxes: list[Box] = field(default_factory=list)
    task: tuple[str, str] = ("", "")


def category_of_names(source: Source, names: set[str]) -> dict[str, Any]:
    """Category for joints that have names but no order.

    With --skeleton it is that category. If all names are COCO's, it has the labelled joints in COCO's order; joints without
    labels are left out, because a network cannot learn them. Otherwise it has the names in alphabetical order.
    """
    if source.skeleton is not None:
        return dict(source.skeleton)
    if not names or not names <= set(COCO.names):
        source.notes.append(
            f"{len(names)} joints in alphabetical order, without limbs: give the same --skeleton for all splits to set both."
        )
        return {"keypoints": sorted(names)}
    if len(names) < len(COCO.names):
        source.notes.append(
            f"{len(names)} of COCO's {len(COCO.names)} joints are labelled and used, in COCO's order: give --skeleton "
            "for other joints, and the same file for all exports that belong together."
        )
    ordered = [name for name in COCO.names if name in names]
    limbs = [(COCO.names[a], COCO.names[b]) for a, b in COCO.limbs]
    return {
        "keypoints": ordered,
        "skeleton": [[ordered.index(a) + 1, ordered.index(b) + 1] for a, b in limbs if {a, b} <= names],
    }


def no_such_label(wanted: Collection[str], labels: Collection[str], source: Source) -> DistilPoseError:
    """The error for chosen labels that no rectangle has."""
    choices = f"choose from {quoted(labels)}" if labels else "there are no rectangles, leave the option out"
    return DistilPoseError(f"No rectangle has the label {quoted(wanted)} in {source.path}: {choices}.")


def choose_boxes(images: Sequence[Regions], source: Source) -> None:
    """Keep the boxes of persons: those with a label of --box-label, or all boxes if they have one label.

    Raises:
        DistilPoseError: boxes have several labels and none is chosen, or no box has a chosen label.
    """
    labels = {box.label for image in images for box in image.boxes}
    if not source.box_labels:
        if len(labels) > 1:
            raise DistilPoseError(
                f"{source.path} has rectangles with the labels {quoted(labels)}: choose those of persons by --box-label."
            )
        return
    if labels.isdisjoint(source.box_labels):
        raise no_such_label(source.box_labels, labels, source)
    for image in images:
        kept = [box for box in image.boxes if box.label in source.box_labels]
        if len(kept) < len(image.boxes):
            source.skip("rectangles of other labels than --box-label", len(image.boxes) - len(kept))
        image.boxes = kept


def group_persons(images: Sequence[Regions], names: Sequence[str], source: Source) -> list[Person]:
    """Persons of all images, with a note on the rectangles that are used as their boxes."""
    if len(names) > MAX_JOINTS:  # before arrays are allocated for them
        raise DistilPoseError(f"{source.path} has {len(names)} joints: expected at most {MAX_JOINTS} per person.")
    persons = [person for image in images for person in _persons_of(image, names, source)]
    boxed = [person for person in persons if person.box is not None]
    if boxed:
        labels = {box.label for image in images for box in image.boxes}
        empty = sum(not person.joints[:, 2].any() for person in boxed)
        source.notes.append(
            f"{len(boxed)} rectangles labelled {quoted(labels)} are used as persons' boxes, {empty} of them without joints."
        )
    return persons


def _persons_of(image: Regions, names: Sequence[str], source: Source) -> list[Person]:
    """Persons by group; joints without a group belong to the smallest box around them, or to the only person."""
    if len(image.points) * len(image.boxes) > MAX_PAIRS:
        source.skip("images with thousands of boxes and points")
        return []
    groups: dict[Any, list[Point]] = defaultdict(list)
    boxes: dict[Any, Box] = {}
    for place, box in enumerate(image.boxes):
        if boxes.setdefault(place if box.group is None else box.group, box) is not box:
            source.skip("further boxes of a group, after its first")
    keys, values = list(boxes), np.array([box.values for box in boxes.values()]).reshape(-1, 4)
    for point in image.points:
        if point.group is None:
            inside = smallest_box_around(np.array([[point.x, point.y]]), values)
            groups[None if inside is None else keys[inside]].append(point)
        else:
            groups[point.group].append(point)
    loose = groups.pop(None, [])
    if loose and not boxes and not groups and len({point.name for point in loose}) == len(loose):
        groups["the only person"] = loose
    elif loose:
        source.skip("joints without a person (no group, no box around them)", len(loose))
    persons = []
    for key in list(dict.fromkeys([*boxes, *groups])):
        joints = np.zeros((len(names), 3))
        for point in groups.get(key, []):
            if point.name not in names:
                source.skip("joints whose name is not in the skeleton")
            elif joints[names.index(point.name), 2]:
                source.skip("joints drawn twice for one person")
            else:
                joints[names.index(point.name)] = point.x, point.y, point.v
        persons.append(Person(image.image, joints, boxes[key].values if key in boxes else None, size=image.size))
    return persons


def smallest_box_around(
    points: NDArray[np.float64], boxes: NDArray[np.float64], slack: float = 0.0, share: float = 1.0
) -> int | None:
    """Index of the smallest box around points, None if there is none.

    Args:
        points: (N, 2) pixels.
        boxes: (B, 4) x, y, width, height in pixels.
        slack: pixels that a point may lie outside the box.
        share: share of the points that must lie in the box.
    """
    lowest, highest = boxes[:, :2] - slack, boxes[:, :2] + boxes[:, 2:] + slack
    if share == 1:
        inside = ((lowest <= points.min(0)) & (points.max(0) <= highest)).all(1)
    else:
        inside = ((lowest[:, None] <= points) & (points <= highest[:, None])).all(2).mean(1) >= share
    return int(np.where(inside, boxes[:, 2:].prod(1), np.inf).argmin()) if inside.any() else None
