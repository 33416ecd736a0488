"""CVAT for images 1.1: skeletons, single labelled points with boxes, or lists of points."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any
from xml.parsers import expat

import numpy as np

from distilpose.curation.formats.common import Person, Source, is_size
from distilpose.curation.formats.cvat_labels import read_labels
from distilpose.curation.formats.regions import (
    MOST_PAIRS,
    Box,
    Drawn,
    Point,
    category_of_names,
    choose_boxes,
    persons_of_all,
    smallest_around,
)  # fmt: skip
from distilpose.errors import DistilPoseError

_HEAD = 2**20
_DEEPEST = 50
_SKELETON = "skeleton "
MOST_OF_IT = 0.75  # of a skeleton's joints: hands often reach out of the box somebody drew


def read(source: Source) -> tuple[list[Person], dict[str, Any]]:
    """The persons of all images; the joints' order and limbs come from the labels at the head of the file."""
    _refuse_entities(source.path)
    drawn: list[Drawn] = []
    lists: list[tuple[str, Person]] = []
    labels: dict[str, Any] = {}
    subsets: set[str] = set()
    depth = 0
    try:
        for event, element in ElementTree.iterparse(source.path, events=("start", "end")):
            depth += 1 if event == "start" else -1
            if depth > _DEEPEST:
                raise DistilPoseError(f"{source.path} is nested too deeply for CVAT's format: export it again.")
            if event == "end" and element.tag == "track":
                raise DistilPoseError(f"{source.path} is of 'CVAT for video': export it as 'CVAT for images 1.1'.")
            if event == "end" and element.tag == "labels" and not labels:
                labels = read_labels(element, source)
            if event == "end" and element.tag == "image":
                subsets.add(element.get("subset", ""))
                one, more = _image(element, source)
                drawn.append(one)
                lists += more
                element.clear()
    except (ElementTree.ParseError, LookupError) as error:  # LookupError: an encoding that nobody knows
        raise DistilPoseError(f"{source.path} is no XML ({error}): export it again as 'CVAT for images 1.1'.") from None
    except DistilPoseError:
        raise
    except ValueError as error:
        raise DistilPoseError(
            f"{source.path} holds a coordinate that is no number ({error}): export it again."
        ) from None
    if not drawn:
        raise DistilPoseError(f"{source.path} lists no <image>: export it as 'CVAT for images 1.1'.")
    source.refuse_unknown_split(subsets - {""})
    points = [point for one in drawn for point in one.points]
    skeletons = any((point.group or "").startswith(_SKELETON) for point in points)
    if lists and not skeletons and len(points) < sum(len(person.joints) for _, person in lists):
        beside = len(points) + sum(len(one.boxes) for one in drawn)
        if beside:
            source.left_out["boxes and points beside lists of points"] += beside
        return _persons_of_lists(lists, source)
    if lists:
        source.left_out["lists of points beside skeletons or single points"] += len(lists)
    choose_boxes(drawn, source)
    for one in drawn:
        _box_skeletons(one)
    used = {point.name for point in points}
    category = labels if labels and source.skeleton is None else category_of_names(source, used)
    return persons_of_all(drawn, category["keypoints"], source), category


def _refuse_entities(path: Path) -> None:
    """Read up to the first element: without a document type before it, no entity can grow or fetch a file."""

    class Done(Exception):  # noqa: N818  (no error: the way to stop the parser)
        pass

    def refuse(*_: Any) -> None:
        raise DistilPoseError(f"{path} has a document type (<!DOCTYPE>), which CVAT never writes: it was not read.")

    def done(*_: Any) -> None:
        raise Done

    parser = expat.ParserCreate()
    parser.StartDoctypeDeclHandler = refuse
    parser.StartElementHandler = done
    try:
        with open(path, "rb") as file:
            parser.Parse(file.read(_HEAD), False)
    except Done:
        return
    except DistilPoseError:
        raise
    except (expat.ExpatError, LookupError, ValueError) as error:  # the last two: encodings that expat does not know
        raise DistilPoseError(f"{path} is no XML ({error}): export it again as 'CVAT for images 1.1'.") from None
    raise DistilPoseError(f"{path} has no element in its first {_HEAD >> 20} MiB: export it as 'CVAT for images 1.1'.")


def _image(element: ElementTree.Element, source: Source) -> tuple[Drawn, list[tuple[str, Person]]]:
    """What is drawn on an image, and the persons that are lists of points, with their labels."""
    drawn = Drawn(element.get("name", ""), _size(element))
    lists: list[tuple[str, Person]] = []
    if source.split is not None and element.get("subset") not in (None, source.split):
        return drawn, lists
    for number, shape in enumerate(element):
        label, group = shape.get("label", "").strip(), shape.get("group_id")
        group = None if group in (None, "0", "") else f"group {group}"
        places = _pairs(shape) if shape.tag == "points" else []
        if shape.tag == "points" and len(places) == 1:  # labelled with the joint's name, not the person's kind
            drawn.points.append(_point(shape, places[0], group))
        elif shape.tag in ("skeleton", "points") and source.category not in (None, label):
            source.left_out["skeletons and lists of points of other labels"] += 1
        elif shape.tag == "box" and not source.box_labels and source.category not in (None, label):
            source.left_out["boxes of other labels than --category (those of persons are named by --box-label)"] += 1
        elif shape.tag == "skeleton":
            for joint in shape.findall("points"):
                if joint.get("outside") == "1":
                    continue
                if len(places := _pairs(joint)) == 1:
                    drawn.points.append(_point(joint, places[0], f"{_SKELETON}{number}"))
                else:
                    source.left_out["joints that are not one point"] += 1
        elif shape.tag == "points" and not places:
            source.left_out["points without a place"] += 1
        elif shape.tag == "points":
            seen = 1 if shape.get("occluded") == "1" else 2
            rows = np.array([[*place, seen] for place in places], dtype=np.float64)
            lists.append((label, Person(drawn.image, rows, size=drawn.size)))
        elif shape.tag == "box" and _number(shape.get("rotation", "0")):
            source.left_out["turned boxes"] += 1
        elif shape.tag == "box":
            left, top, right, low = (_number(shape.get(side, "")) for side in ("xtl", "ytl", "xbr", "ybr"))
            drawn.boxes.append(Box(np.array([left, top, right - left, low - top]), group, label))
        elif shape.tag in ("polygon", "polyline", "mask", "ellipse", "cuboid", "tag"):
            source.left_out[f"shapes of kind {shape.tag}"] += 1
    return drawn, lists


def _persons_of_lists(lists: list[tuple[str, Person]], source: Source) -> tuple[list[Person], dict[str, Any]]:
    """The persons that are lists of points, whose joints have no names."""
    counts = {len(person.joints) for _, person in lists}
    labels = {label: None for label, _ in lists}
    if len(counts) > 1 or len(labels) > 1:
        raise DistilPoseError(
            f"Lists of points in {source.path} have {min(counts)} to {max(counts)} points and {len(labels)} labels (first "
            f"{next(iter(labels))[:40]!r}): choose a label by --category; each person needs as many points, in one order."
        )
    return [person for _, person in lists], source.joints(counts.pop())


def _box_skeletons(drawn: Drawn) -> None:
    """Give each skeleton the smallest free box around it, or most of it; boxes of nobody stay persons without joints."""
    groups: dict[str, list[tuple[float, float]]] = {}
    for point in drawn.points:
        if point.group is not None and point.group.startswith(_SKELETON):
            groups.setdefault(point.group, []).append((point.x, point.y))
    if not groups or len(drawn.points) * len(drawn.boxes) > MOST_PAIRS:
        return
    values = np.array([box.values for box in drawn.boxes]).reshape(-1, 4)
    for share in (1.0, MOST_OF_IT):
        for group, places in list(groups.items()):
            place = smallest_around(np.array(places), values, slack=1, share=share)
            if place is not None:
                drawn.boxes[place].group = group
                values[place] = np.nan  # no longer free
                del groups[group]


def _size(element: ElementTree.Element) -> tuple[float, float] | None:
    """Width and height as the file states them."""
    try:
        return _number(element.get("width", "")), _number(element.get("height", ""))
    except ValueError:
        return None


def _point(element: ElementTree.Element, place: tuple[float, float], group: str | None) -> Point:
    return Point(element.get("label", "").strip(), *place, 1 if element.get("occluded") == "1" else 2, group)


def _pairs(element: ElementTree.Element) -> list[tuple[float, float]]:
    """Coordinates, which are written as x,y;x,y and so on."""
    pairs = [pair.split(",") for pair in element.get("points", "").split(";") if pair]
    if any(len(pair) != 2 for pair in pairs):
        raise ValueError(element.get("points", "")[:60])
    return [(_number(x), _number(y)) for x, y in pairs]


def _number(text: str) -> float:
    """A finite number of a sensible size.

    Raises:
        ValueError: it is none.
    """
    value = float(text)
    if not is_size(value):
        raise ValueError(text[:60])
    return value
