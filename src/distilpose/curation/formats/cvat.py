"""CVAT for images 1.1: skeletons, single labelled points with boxes, or lists of points."""

from __future__ import annotations

import html
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any
from xml.parsers import expat

import numpy as np

from distilpose.curation.formats.common import Person, Source
from distilpose.curation.formats.regions import Box, Drawn, Point, category_of_names, persons_of
from distilpose.errors import DistilPoseError

_HEAD = 2**20
_DEEPEST = 50


def read(source: Source) -> tuple[list[Person], dict[str, Any]]:
    """The persons of all images; the joints' order and limbs come from the labels at the head of the file."""
    _refuse_entities(source.path)
    drawn: list[Drawn] = []
    lists: list[Person] = []
    labels: dict[str, Any] = {}
    depth = 0
    try:
        for event, element in ElementTree.iterparse(source.path, events=("start", "end")):
            depth += 1 if event == "start" else -1
            if depth > _DEEPEST:
                raise DistilPoseError(f"{source.path} is nested too deeply for CVAT's format: export it again.")
            if event == "end" and element.tag == "track":
                raise DistilPoseError(f"{source.path} is of 'CVAT for video': export it as 'CVAT for images 1.1'.")
            if event == "end" and element.tag == "labels" and not labels:
                labels = _labels(element, source)
            if event == "end" and element.tag == "image":
                one, more = _image(element, source)
                drawn.append(one)
                lists += more
                element.clear()
    except ElementTree.ParseError as error:
        raise DistilPoseError(f"{source.path} is no XML ({error}): export it again as 'CVAT for images 1.1'.") from None
    except ValueError as error:
        if isinstance(error, DistilPoseError):
            raise
        raise DistilPoseError(
            f"{source.path} holds a coordinate that is no number ({error}): export it again."
        ) from None
    if not drawn:
        raise DistilPoseError(f"{source.path} lists no <image>: export it as 'CVAT for images 1.1'.")
    if lists:
        counts = {len(person.joints) for person in lists}
        if len(counts) > 1:
            raise DistilPoseError(
                f"Lists of points in {source.path} have {min(counts)} to {max(counts)} points: expected as many for each "
                "person, in the same order; label with skeletons instead."
            )
        beside = sum(len(one.points) + len(one.boxes) for one in drawn)
        if beside:
            source.left_out["boxes and points beside lists of points"] += beside
        return lists, source.joints(counts.pop())
    used = {point.name for one in drawn for point in one.points}
    category = labels if labels and source.skeleton is None else category_of_names(source, used)
    return [person for one in drawn for person in persons_of(one, category["keypoints"], source)], category


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
    except expat.ExpatError as error:
        raise DistilPoseError(f"{path} is no XML ({error}): export it again as 'CVAT for images 1.1'.") from None
    raise DistilPoseError(f"{path} has no element in its first {_HEAD >> 20} MiB: export it as 'CVAT for images 1.1'.")


def _labels(element: ElementTree.Element, source: Source) -> dict[str, Any]:
    """Joints and limbs of the skeleton label, if there is one (that of --category, if several)."""
    found: dict[str, dict[str, list[Any]]] = {}
    for label in element.findall("label"):
        name, kind = (label.findtext("name") or "").strip(), (label.findtext("type") or "").strip()
        parent = (label.findtext("parent") or "").strip()
        if kind == "skeleton":
            found[name] = {"keypoints": [], "skeleton": _limbs(label.findtext("svg") or "")}
        elif parent in found:
            found[parent]["keypoints"].append(name)
        for joint in label.iterfind("sublabels/label"):
            if name in found:
                found[name]["keypoints"].append((joint.findtext("name") or "").strip())
    if source.category is not None:
        found = {name: entry for name, entry in found.items() if name == source.category}
    if len(found) > 1:
        raise DistilPoseError(f"{source.path} has several skeletons ({', '.join(found)}): choose one by --category.")
    for entry in found.values():
        if not entry["keypoints"]:
            return {}
        count = len(entry["keypoints"])
        if any(not 1 <= joint <= count for limb in entry["skeleton"] for joint in limb):
            entry["skeleton"] = []
            source.notes.append("The skeleton's drawing names joints it does not have: written without limbs.")
    return next(iter(found.values()), {})


def _limbs(drawing: str) -> list[list[int]]:
    """Edges of the skeleton's drawing, whose nodes are counted from 1 in the order of its joints."""
    edges = re.findall(r"<line[^>]*>", html.unescape(drawing))
    ends = [(re.search(r'data-node-from="(\d+)"', edge), re.search(r'data-node-to="(\d+)"', edge)) for edge in edges]
    return [[int(start[1]), int(end[1])] for start, end in ends if start and end]


def _image(element: ElementTree.Element, source: Source) -> tuple[Drawn, list[Person]]:
    """What is drawn on an image, and the persons that are lists of points."""
    drawn = Drawn(element.get("name", ""))
    lists: list[Person] = []
    if source.split is not None and element.get("subset") not in (None, source.split):
        return drawn, lists
    wanted = source.category
    for number, shape in enumerate(element):
        group = shape.get("group_id")
        group = None if group in (None, "0", "") else f"group {group}"
        if shape.tag == "skeleton" and wanted in (None, shape.get("label")):
            for joint in shape.findall("points"):
                places = _pairs(joint)
                if joint.get("outside") != "1" and len(places) == 1:
                    drawn.points.append(_point(joint, places[0], f"skeleton {number}"))
                elif joint.get("outside") != "1":
                    source.left_out["joints that are not one point"] += 1
        elif shape.tag == "points":
            places = _pairs(shape)
            if len(places) == 1:
                drawn.points.append(_point(shape, places[0], group))
            else:
                rows = np.array(
                    [[*place, 1 if shape.get("occluded") == "1" else 2] for place in places], dtype=np.float64
                )
                lists.append(Person(drawn.image, rows))
        elif shape.tag == "box" and wanted in (None, shape.get("label")):
            left, top, right, low = (float(shape.get(side, "nan")) for side in ("xtl", "ytl", "xbr", "ybr"))
            drawn.boxes.append(Box(np.array([left, top, right - left, low - top]), group))
        elif shape.tag in ("polygon", "polyline", "mask", "ellipse", "cuboid", "tag"):
            source.left_out[f"shapes of kind {shape.tag}"] += 1
    if any((point.group or "").startswith("skeleton") for point in drawn.points):
        _box_of_skeletons(drawn)
    return drawn, lists


def _box_of_skeletons(drawn: Drawn) -> None:
    """Give each skeleton the smallest free box around it; boxes of nobody stay persons without joints."""
    groups = dict.fromkeys(point.group for point in drawn.points if (point.group or "").startswith("skeleton"))
    for group in groups:
        places = np.array([(point.x, point.y) for point in drawn.points if point.group == group])
        fits = [
            box for box in drawn.boxes
            if box.group is None or not box.group.startswith("skeleton")
            if (places >= box.values[:2] - 1).all() and (places <= box.values[:2] + box.values[2:] + 1).all()
        ]  # fmt: skip
        if fits:
            min(fits, key=lambda box: box.values[2:].prod()).group = group


def _point(element: ElementTree.Element, place: tuple[float, float], group: str | None) -> Point:
    return Point(element.get("label", "").strip(), *place, 1 if element.get("occluded") == "1" else 2, group)


def _pairs(element: ElementTree.Element) -> list[tuple[float, float]]:
    """Coordinates, which are written as x,y;x,y and so on."""
    pairs = [pair.split(",") for pair in element.get("points", "").split(";") if pair]
    if any(len(pair) != 2 for pair in pairs):
        raise ValueError(element.get("points", "")[:60])
    return [(float(x), float(y)) for x, y in pairs]
