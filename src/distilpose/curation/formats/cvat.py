"""CVAT for images 1.1: skeletons, single labelled points with boxes, or lists of points."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections import defaultdict
from dataclasses import replace
from typing import Any

import numpy as np

from distilpose.curation.conversion.regions import (
    MAX_PAIRS,
    Box,
    Point,
    Regions,
    category_of_names,
    choose_boxes,
    group_persons,
    smallest_box_around,
)
from distilpose.curation.conversion.source import Person, Source, is_size, quoted
from distilpose.curation.formats.cvat_labels import read_labels
from distilpose.curation.formats.cvat_tasks import separate_tasks
from distilpose.curation.parsing import parsing
from distilpose.errors import DistilPoseError

_MAX_DEPTH = 50
_SKELETON = "skeleton "
MIN_SHARE_INSIDE = 0.75  # share of a skeleton's joints in its box: hands often extend beyond the box


def read(source: Source) -> tuple[list[Person], dict[str, Any]]:
    """Persons of all images. Order and limbs of the joints come from the labels at the start of the file."""
    file = _Document(source)
    with parsing(source.path, "CVAT for images 1.1"):
        ElementTree.parse(source.path, ElementTree.XMLParser(target=file))
    source.check_split(file.subsets)
    separate_tasks(file.images, file.tasks, source)
    file.lists = [(label, replace(person, image=image.image)) for label, person, image in file.lists_on if image.image]
    points = [point for image in file.images for point in image.points]
    has_skeletons = any((point.group or "").startswith(_SKELETON) for point in points)
    if file.lists and not has_skeletons and len(points) < sum(len(person.joints) for _, person in file.lists):
        beside = len(points) + sum(len(image.boxes) for image in file.images)
        if beside:
            source.skip("boxes and points beside lists of points", beside)
        return _persons_of_lists(file.lists, source)
    if file.lists:
        source.skip("lists of points beside skeletons or single points", len(file.lists))
    choose_boxes(file.images, source)
    for image in file.images:
        _box_skeletons(image)
    names = {point.name for point in points}
    category = file.category if file.category and source.skeleton is None else category_of_names(source, names)
    return group_persons(file.images, category["keypoints"], source), category


class _Document(ElementTree.TreeBuilder):
    """Collects the content of an export while it is parsed, and frees the memory of each image.

    Attributes:
        category: category of the labels, empty without a skeleton label.
        images: points and boxes of each image.
        lists: label and person of each list of points.
        lists_on: the same, each with its image.
        tasks: name of each task of a project by its id.
        subsets: names of the splits.
    """

    def __init__(self, source: Source) -> None:
        super().__init__()
        self.source = source
        self.category: dict[str, Any] = {}
        self.images: list[Regions] = []
        self.lists: list[tuple[str, Person]] = []
        self.lists_on: list[tuple[str, Person, Regions]] = []
        self.tasks: dict[str, str] = {}
        self.subsets: set[str] = set()
        self._depth = 0

    def doctype(self, *_: Any) -> None:
        """Reject entities, which can grow without limit or fetch files. CVAT writes no document type."""
        raise DistilPoseError(f"{self.source.path} has a document type (<!DOCTYPE>), which CVAT never writes.")

    def start(self, tag: Any, attrs: Any) -> ElementTree.Element:
        """Start an element."""
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise DistilPoseError(f"{self.source.path} is nested too deeply for CVAT's format: export it again.")
        if tag == "track":
            raise DistilPoseError(f"{self.source.path} is 'CVAT for video': export it as 'CVAT for images 1.1'.")
        return super().start(tag, attrs)

    def end(self, tag: Any) -> ElementTree.Element:
        """End an element, and read it if it is an image or the labels."""
        self._depth -= 1
        element = super().end(tag)
        if tag == "labels" and not self.category:
            self.category = read_labels(element, self.source)
        if tag == "task":
            self.tasks[(element.findtext("id") or "").strip()] = (element.findtext("name") or "").strip()
        if tag == "image":
            self._read_image(element)
            element.clear()
        return element

    def _read_image(self, element: ElementTree.Element) -> None:
        """Read the shapes of an image."""
        source, subset = self.source, element.get("subset", "")
        self.subsets |= {subset} - {""}
        image = Regions(element.get("name", ""), _size(element), task=(element.get("task_id", ""), subset))
        self.images.append(image)
        if source.split is not None and subset not in ("", source.split):
            return
        for number, shape in enumerate(element):
            label, group = shape.get("label", "").strip(), shape.get("group_id")
            group = None if group in (None, "0", "") else f"group {group}"
            places = _pairs(shape) if shape.tag == "points" else []
            if len(places) == 1:  # its label is the name of a joint, not of a person
                image.points.append(_point(shape, places[0], group))
            elif shape.tag in ("skeleton", "points") and source.category not in (None, label):
                source.skip("skeletons and lists of points of other labels")
            elif shape.tag == "box" and not source.box_labels and source.category not in (None, label):
                source.skip("boxes of other labels than --category (choose those of persons by --box-label)")
            elif shape.tag == "skeleton":
                for joint in shape.findall("points"):
                    if joint.get("outside") == "1":
                        continue
                    if len(places := _pairs(joint)) == 1:
                        image.points.append(_point(joint, places[0], f"{_SKELETON}{number}"))
                    else:
                        source.skip("joints that are not a single point")
            elif shape.tag == "points" and not places:
                source.skip("points without coordinates")
            elif shape.tag == "points":
                rows = np.array([[*place, _visibility(shape)] for place in places], dtype=np.float64)
                self.lists_on.append((label, Person(image.image, rows, size=image.size), image))
            elif shape.tag == "box" and _number(shape.get("rotation", "0")):
                source.skip("turned boxes")
            elif shape.tag == "box":
                left, top, right, bottom = (_number(shape.get(side, "")) for side in ("xtl", "ytl", "xbr", "ybr"))
                image.boxes.append(Box(np.array([left, top, right - left, bottom - top]), group, label))
            elif shape.tag in ("polygon", "polyline", "mask", "ellipse", "cuboid", "tag"):
                source.skip(f"shapes of kind {shape.tag}")


def _persons_of_lists(lists: list[tuple[str, Person]], source: Source) -> tuple[list[Person], dict[str, Any]]:
    """Persons that are lists of points, whose joints have no names."""
    counts = {len(person.joints) for _, person in lists}
    labels = {label for label, _ in lists}
    if len(counts) > 1 or len(labels) > 1:
        raise DistilPoseError(
            f"Lists of points in {source.path} have {min(counts)} to {max(counts)} points and the labels {quoted(labels)}: "
            "choose a label by --category; all persons need the same number of points, in one order."
        )
    return [person for _, person in lists], source.category_of_count(counts.pop())


def _box_skeletons(image: Regions) -> None:
    """Assign to each skeleton the smallest free box around its joints. The other boxes are persons without joints."""
    groups: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for point in image.points:
        if point.group is not None and point.group.startswith(_SKELETON):
            groups[point.group].append((point.x, point.y))
    if not groups or len(image.points) * len(image.boxes) > MAX_PAIRS:
        return
    values = np.array([box.values for box in image.boxes]).reshape(-1, 4)
    for share in (1.0, MIN_SHARE_INSIDE):
        for group, places in list(groups.items()):
            index = smallest_box_around(np.array(places), values, slack=1, share=share)
            if index is not None:
                image.boxes[index].group = group
                values[index] = np.nan  # no longer free
                del groups[group]


def _size(element: ElementTree.Element) -> tuple[float, float] | None:
    """Width and height as the file states them."""
    try:
        return _number(element.get("width", "")), _number(element.get("height", ""))
    except ValueError:
        return None


def _visibility(element: ElementTree.Element) -> int:
    return 1 if element.get("occluded") == "1" else 2


def _point(element: ElementTree.Element, place: tuple[float, float], group: str | None) -> Point:
    return Point(element.get("label", "").strip(), *place, _visibility(element), group)


def _pairs(element: ElementTree.Element) -> list[tuple[float, float]]:
    """Coordinates of a shape, written as x,y;x,y and so on."""
    pairs = [pair.split(",") for pair in element.get("points", "").split(";") if pair]
    return [(_number(x), _number(y)) for x, y in pairs]


def _number(text: str) -> float:
    """A finite number that fits a coordinate.

    Raises:
        ValueError: the text is not such a number.
    """
    value = float(text)
    if not is_size(value):
        raise ValueError(f"{text[:60]!r} is not a coordinate")
    return value
