"""JSON export of Label Studio: key points and rectangles in percent of the image."""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from distilpose.curation.conversion.image_lookup import ImageReference, find_images, image_size
from distilpose.curation.conversion.regions import (
    Box,
    Point,
    Regions,
    category_of_names,
    choose_boxes,
    group_persons,
    no_such_label,
)
from distilpose.curation.conversion.source import Person, Source, is_size
from distilpose.curation.formats.label_studio_addresses import addresses_of, keys_of_tags, parse_address
from distilpose.curation.parsing import read_json, validated
from distilpose.errors import DistilPoseError

HIDDEN = ("hidden", "invisible", "not visible", "obscured", "occluded")  # choices that make a key point v = 1
VISIBLE = ("seen", "visible", "not hidden", "not occluded")
_RECTANGLES = ("rectanglelabels", "rectangle")
_POINTS = ("keypointlabels", "keypoint")


class _Region:
    """A region, choice or relation of an annotation. Values of a wrong type are replaced by empty ones.

    Attributes:
        content: the exported dictionary.
        id: id of the region.
        type: type of the region, such as "keypointlabels".
        value: its values.
        is_rectangle: whether it is a rectangle.
        group: id of the rectangle that it belongs to; None if it belongs to none.
        tag: name of the <Image> tag that it was drawn on.
        is_wanted: whether it is, or belongs to, a rectangle of --box-label or --category; true without these options.
    """

    def __init__(self, content: dict[str, Any]) -> None:
        self.content = content
        self.id = str(content.get("id"))
        self.type = content.get("type")
        self.value: dict[str, Any] = _typed(content.get("value"), dict)
        self.is_rectangle = self.type in _RECTANGLES
        self.group = str(content["parentID"]) if content.get("parentID") else None
        self.is_wanted = True
        self.tag = str(content["to_name"]) if content.get("to_name") else None

    def listed(self, key: str) -> list[Any]:
        """The value of that key, which is a list."""
        return _typed(self.value.get(key), list)

    @property
    def labels(self) -> list[str]:
        """Labels of a rectangle."""
        return [label for label in self.listed("rectanglelabels") if isinstance(label, str)]

    @property
    def joint(self) -> str | None:
        """The only label of a key point."""
        labels = self.listed("keypointlabels")
        return labels[0] if len(labels) == 1 and isinstance(labels[0], str) else None


def read(source: Source) -> tuple[list[Person], dict[str, Any]]:
    """Persons of all tasks, from one annotation of each that was not cancelled: the ground truth, or else the first."""
    tasks = validated(list[dict[str, Any]], read_json(source.path), source.path)
    if tasks and not any("annotations" in task for task in tasks):
        raise DistilPoseError(f"{source.path} has no 'annotations' in its tasks: export as JSON, not JSON-MIN.")
    regions = [_read_regions(task, source) for task in tasks]
    # the names in all tasks, so that two splits made from one export have the same joints
    points = [one for row in regions for one in row if one.type == "keypointlabels" and one.is_wanted]
    names = {one.joint for one in points if one.joint is not None}
    if not names:
        labels = {label for row in regions for one in row if one.is_rectangle for label in one.labels}
        wanted = _wanted_labels(source)
        if labels and wanted and wanted.isdisjoint(labels):
            raise no_such_label(wanted, labels, source)
    by_address = _by_address(tasks, regions, source)
    references: dict[str, ImageReference] = {}
    for parts in by_address:
        for address in parts:
            references.setdefault(address, parse_address(address)).count += 1
    image_of = find_images(source, references, "tasks of images")
    images = []
    for task, parts in zip(tasks, by_address, strict=True):
        found = {image_of[address]: row for address, row in parts.items() if address in image_of}
        if found and _is_annotated(task, source):
            images += [one for name, row in found.items() if (one := _read_image(row, name, source)) is not None]
    choose_boxes(images, source)
    category = category_of_names(source, names)
    return group_persons(images, category["keypoints"], source), category


def _wanted_labels(source: Source) -> set[str]:
    """Labels of the rectangles to convert; empty for all."""
    return set(source.box_labels or filter(None, [source.category]))


def _annotations(task: dict[str, Any]) -> list[dict[str, Any]]:
    """Annotations that were not cancelled, those that were marked as ground truth first."""
    annotations = _typed(task.get("annotations"), list)
    valid = [one for one in annotations if isinstance(one, dict) and not one.get("was_cancelled")]
    return sorted(valid, key=lambda one: one.get("ground_truth") is not True)


def _read_regions(task: dict[str, Any], source: Source) -> list[_Region]:
    """Regions of the first annotation, each with the rectangle that it belongs to."""
    results = next((one.get("result") for one in _annotations(task)), None)
    regions = [_Region(one) for one in _typed(results, list) if isinstance(one, dict)]
    boxes = [one for one in regions if one.is_rectangle]
    ids, wanted = {one.id for one in boxes}, _wanted_labels(source)
    unwanted = {one.id for one in boxes if wanted and wanted.isdisjoint(one.labels)}
    parents = {}
    for one in regions:
        if one.type == "relation":
            start, end = str(one.content.get("from_id")), str(one.content.get("to_id"))
            if end in ids:
                parents[start] = end
            elif start in ids:
                parents[end] = start
    for one in regions:
        one.group = parents.get(one.id, one.group)
        one.is_wanted = one.group not in unwanted and not (one.is_rectangle and one.id in unwanted)
    return regions


def _by_address(
    tasks: list[dict[str, Any]], regions: list[list[_Region]], source: Source
) -> list[dict[str, list[_Region]]]:
    """For each task the regions of each of its images, by the image's address. The tag of a region states its image."""
    addresses = [addresses_of(task) for task in tasks]
    keys = list(dict.fromkeys(key for one in addresses if len(one) > 1 for key in one))
    drawn = (one for row in regions for one in row if one.type in _POINTS + _RECTANGLES)
    tags = sorted({one.tag for one in drawn if one.tag is not None})
    key_of = keys_of_tags(tags, keys, source.image_tags, source.path)
    if len(tags) > 1 and len(keys) > 1:
        source.notes.append("Images of the tags: " + ", ".join(f"{tag} shows {key_of[tag]}" for tag in tags))
    parts: list[dict[str, list[_Region]]] = []
    for images, row in zip(addresses, regions, strict=True):
        first = next((key for key in (*key_of.values(), "image", "img", *images) if key in images), None)
        grouped: dict[str, list[_Region]] = {} if first is None or len(images[first]) > 1 else {images[first][0]: []}
        if first is None:
            source.skip("tasks without the address of an image")
        for region in row if first is not None else ():
            pages = images.get(key_of.get(region.tag or "") or first or "", [])
            page = region.content.get("item_index", 0 if len(pages) == 1 else None)
            if isinstance(page, int) and 0 <= page < len(pages):
                grouped.setdefault(pages[page], []).append(region)
            elif region.type in _POINTS + _RECTANGLES:
                source.skip("regions of an image that their task does not have")
        parts.append(grouped if len(grouped) < 2 else {address: row for address, row in grouped.items() if row})
    return parts


def _is_annotated(task: dict[str, Any], source: Source) -> bool:
    """Whether the task has an annotation; none and further ones are counted."""
    annotations = _annotations(task)
    if not annotations:
        source.skip("tasks without an annotation")
    if len(annotations) > 1:
        source.skip("further annotations of a task, after its first", len(annotations) - 1)
    return bool(annotations)


def _read_image(regions: list[_Region], name: str, source: Source) -> Regions | None:
    """Points and boxes of an image. If there are none, None, and the reason is counted."""
    size = image_size(source, name, "tasks of images")
    if size is None:
        return None
    image, hidden = Regions(name, size), _hidden(regions, source)
    for region in regions:
        if isinstance(region.content.get("value"), dict):
            _add_region(region, image, size, hidden, source)
    if not image.points and not image.boxes:
        source.skip("tasks whose annotation has no key point and no rectangle to convert", example=repr(name[-60:]))
        return None
    return image


def _add_region(region: _Region, image: Regions, size: tuple[int, int], hidden: set[str], source: Source) -> None:
    """Add a rectangle or a key point. Percents refer to the image file, which may be smaller than the labelled image."""
    if region.type not in _POINTS + _RECTANGLES:
        if region.type not in (None, "choices"):  # choices are counted in _hidden
            source.skip(f"regions of type {str(region.type)[:40]}")
        return
    if not region.is_wanted:
        source.skip("rectangles of other labels, and their key points")
        return
    labelled: list[Any] = [region.content.get("original_width"), region.content.get("original_height")]
    percents: list[Any] = [
        region.value.get(key) for key in ("x", "y", *(("width", "height") if region.is_rectangle else ()))
    ]
    if not all(map(is_size, labelled + percents)) or min(labelled) <= 0:
        source.skip("regions without position or size of the image")
        return
    if region.content.get("image_rotation") or region.value.get("rotation"):
        source.skip("regions on turned images, or turned boxes")
        return
    if abs(labelled[0] * size[1] - labelled[1] * size[0]) > max(labelled):  # more than a pixel from the same shape
        source.skip("regions drawn on an image of another shape than the file")
        return
    pixels = [percent * side / 100 for percent, side in zip(percents, size * 2, strict=False)]
    if region.is_rectangle:
        wanted = [label for label in region.labels if label in _wanted_labels(source)]
        label = next(iter(wanted or region.labels), "")
        image.boxes.append(Box(np.array(pixels, dtype=np.float64), region.id, label))
    elif region.joint is None:
        source.skip("key points without exactly one label")
    else:
        image.points.append(Point(region.joint, pixels[0], pixels[1], 1 if region.id in hidden else 2, region.group))


def _hidden(regions: list[_Region], source: Source) -> set[str]:
    """Ids of the key points that have a choice of HIDDEN. Choices that are neither in HIDDEN nor VISIBLE are counted."""
    points = {one.id for one in regions if one.type in _POINTS}
    hidden = set()
    for region in regions:
        if region.type != "choices":
            continue
        for choice in region.listed("choices"):
            text = " ".join(re.split(r"[\s_-]+", str(choice).strip().lower()))
            if region.id in points and text in HIDDEN:
                hidden.add(region.id)
            elif region.id not in points or text not in VISIBLE:
                reason = "choices that do not state whether a key point is hidden"
                source.skip(reason, example=repr(str(choice)[:40]))
    return hidden


def _typed(value: Any, kind: type) -> Any:
    """The value, or an empty one if it is of another type."""
    return value if isinstance(value, kind) else kind()
