"""Label Studio's JSON export: key points and rectangles in percent of the image."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from distilpose.curation.formats.common import Person, Source, is_size, read_foreign_json
from distilpose.curation.formats.label_studio_addresses import address_of, meaning_of
from distilpose.curation.formats.photographs import Wanted, find_photographs
from distilpose.curation.formats.regions import (
    Box,
    Drawn,
    Point,
    category_of_names,
    choose_boxes,
    persons_of_all,
)
from distilpose.curation.image_files import find_inside, read_header
from distilpose.errors import DistilPoseError

HIDDEN = ("hidden", "invisible", "not visible", "obscured", "occluded")  # choices that make a key point v = 1
SEEN = ("seen", "visible", "not hidden", "not occluded")


@dataclass
class _Related:
    """What regions of an annotation say of others, by the id of the region.

    Attributes:
        parents: the rectangle that a relation joins it to.
        others: rectangles of another kind than --category names.
        hidden: key points whose choice says that they are hidden.
    """

    parents: dict[str, str] = field(default_factory=dict)
    others: set[str] = field(default_factory=set)
    hidden: set[str] = field(default_factory=set)

    def group(self, region: dict[str, Any]) -> str | None:
        """The rectangle that a key point belongs to."""
        return self.parents.get(str(region.get("id"))) or (str(region["parentID"]) if region.get("parentID") else None)


def read(source: Source) -> tuple[list[Person], dict[str, Any]]:
    """The persons of all tasks, by the first annotation of each that was not cancelled."""
    tasks = read_foreign_json(source.path)
    if not isinstance(tasks, list) or not all(isinstance(task, dict) for task in tasks):
        raise DistilPoseError(f"{source.path} is no list of tasks: export from Label Studio as JSON.")
    if tasks and not any("annotations" in task for task in tasks):
        raise DistilPoseError(f"{source.path} has no 'annotations' in its tasks: export as JSON, not JSON-MIN.")
    # of all tasks, so that one export with two folders of photographs gives two splits with the same joints
    used = {name for task in tasks for name in _names(task, source)}
    if not used:
        labels = sorted(
            {label for task in tasks for one in _results(task) if _is_rectangle(one) for label in _labels(one)}
        )
        named = source.box_labels or (source.category,)
        if labels and named != (None,) and not set(named) & set(labels):
            raise DistilPoseError(
                f"{', '.join(map(str, named))} is the label of no rectangle in {source.path}: "
                f"choose of {', '.join(repr(label[:40]) for label in labels[:10])}."
            )
        raise DistilPoseError(
            f"{source.path} holds no key points (regions of type 'keypointlabels'): nothing to convert."
        )
    wanted: dict[str, Wanted] = {}
    for task in tasks:
        if address := address_of(task):
            wanted.setdefault(address, meaning_of(address)).count += 1
        else:
            source.left_out["tasks without the address of an image"] += 1
    photographs = find_photographs(source, wanted, "tasks of images")
    drawn = [
        one
        for task in tasks
        if (name := photographs.get(address_of(task))) is not None and (one := _task(task, name, source)) is not None
    ]
    choose_boxes(drawn, source)
    category = category_of_names(source, used)
    return persons_of_all(drawn, category["keypoints"], source), category


def _task(task: dict[str, Any], name: str, source: Source) -> Drawn | None:
    done = _done(task)
    if not done:
        source.left_out["tasks without an annotation"] += 1
        return None
    if len(done) > 1:
        source.left_out["further annotations of a task, after its first"] += len(done) - 1
    try:
        size = read_header(find_inside(source.images, name)).shown
    except (OSError, ValueError):
        source.left_out["tasks whose image cannot be read, is too large or lies elsewhere"] += 1
        return None
    results = _results(task)
    drawn = Drawn(name, size)
    related = _related(results, source)
    related.hidden = _hidden(results, source)
    for region in results:
        if isinstance(region.get("value"), dict):
            _region(region, drawn, related, source)
    if not drawn.points and not drawn.boxes:
        source.leave_out("tasks whose annotation has no key point and no rectangle to take", 1, repr(name[-60:]))
        return None
    return drawn


def _done(task: dict[str, Any]) -> list[dict[str, Any]]:
    """The annotations that were not cancelled."""
    annotations = _of_kind(task.get("annotations"), list)
    return [one for one in annotations if isinstance(one, dict) and not one.get("was_cancelled")]


def _results(task: dict[str, Any]) -> list[dict[str, Any]]:
    """The regions and relations of the annotation that is taken."""
    results = next((one.get("result") for one in _done(task)), None)
    return [one for one in _of_kind(results, list) if isinstance(one, dict)]


def _names(task: dict[str, Any], source: Source) -> set[str]:
    """The joints that a task names."""
    results = _results(task)
    related = _related(results, source)
    points = [
        one for one in results if one.get("type") == "keypointlabels" and related.group(one) not in related.others
    ]
    labels = [_of_kind(_of_kind(one.get("value"), dict).get("keypointlabels"), list) for one in points]
    return {one[0] for one in labels if len(one) == 1 and isinstance(one[0], str)}


def _is_rectangle(region: dict[str, Any]) -> bool:
    return region.get("type") in ("rectanglelabels", "rectangle")


def _is_wanted(rectangle: dict[str, Any], source: Source) -> bool:
    """Whether it is of the kind that --box-label names, or --category where that is not given."""
    labels = _labels(rectangle)
    if source.box_labels:
        return not set(labels).isdisjoint(source.box_labels)
    return source.category is None or source.category in labels


def _labels(rectangle: dict[str, Any]) -> list[str]:
    labels = _of_kind(_of_kind(rectangle.get("value"), dict).get("rectanglelabels"), list)
    return [label for label in labels if isinstance(label, str)]


def _region(region: dict[str, Any], drawn: Drawn, related: _Related, source: Source) -> None:
    """Add a rectangle or a key point; its percents count of the file, which may be smaller than what was labelled."""
    kind, value, number = region.get("type"), region["value"], str(region.get("id"))
    if kind not in ("keypointlabels", "rectanglelabels", "keypoint", "rectangle"):
        if kind not in (None, "choices"):  # choices are counted where they are read
            source.left_out[f"regions of type {str(kind)[:40]}"] += 1
        return
    group = related.group(region)
    if group in related.others or (_is_rectangle(region) and number in related.others):
        source.left_out["rectangles of other labels, and their key points"] += 1
        return
    sides = ("width", "height") if _is_rectangle(region) else ()
    given = [
        region.get("original_width"),
        region.get("original_height"),
        *(value.get(key) for key in ("x", "y", *sides)),
    ]
    if not all(map(is_size, given)) or min(given[:2]) <= 0:
        source.left_out["regions without position or size of the image"] += 1
        return
    if region.get("image_rotation") or value.get("rotation"):
        source.left_out["regions on turned images, or turned boxes"] += 1
        return
    width, height = drawn.size or given[:2]
    if abs(given[0] * height - given[1] * width) > max(given[:2]):  # more than a pixel from the same shape
        source.left_out["regions drawn on an image of another shape than the file"] += 1
        return
    scaled = [one * side / 100 for one, side in zip(given[2:], (width, height) * 2, strict=False)]
    if sides:
        chosen = source.box_labels or (source.category,)
        label = next((one for one in _labels(region) if one in chosen), None) or next(iter(_labels(region)), "")
        drawn.boxes.append(Box(np.array(scaled, dtype=np.float64), number, label))
        return
    labels = value.get("keypointlabels")
    if not isinstance(labels, list) or len(labels) != 1 or not isinstance(labels[0], str):
        source.left_out["key points without exactly one label"] += 1
        return
    drawn.points.append(Point(labels[0], scaled[0], scaled[1], 1 if number in related.hidden else 2, group))


def _related(results: list[dict[str, Any]], source: Source) -> _Related:
    """The rectangle that a relation joins each region to, and the rectangles that are not wanted."""
    boxes = {str(one.get("id")) for one in results if _is_rectangle(one)}
    related = _Related(
        others={str(one.get("id")) for one in results if _is_rectangle(one) and not _is_wanted(one, source)}
    )
    for one in results:
        if one.get("type") == "relation":
            start, end = str(one.get("from_id")), str(one.get("to_id"))
            if end in boxes:
                related.parents[start] = end
            elif start in boxes:
                related.parents[end] = start
    return related


def _hidden(results: list[dict[str, Any]], source: Source) -> set[str]:
    """The key points whose own choice is one of HIDDEN; choices that say something else are counted."""
    points = {str(one.get("id")) for one in results if one.get("type") in ("keypointlabels", "keypoint")}
    hidden = set()
    for region in results:
        if region.get("type") != "choices":
            continue
        number = str(region.get("id"))
        for choice in _of_kind(_of_kind(region.get("value"), dict).get("choices"), list):
            word = " ".join(re.split(r"[\s_-]+", str(choice).strip().lower()))
            if number in points and word in HIDDEN:
                hidden.add(number)
            elif number not in points or word not in SEEN:
                reason = "choices that do not say of a key point whether it is hidden"
                source.leave_out(reason, 1, repr(str(choice)[:40]))
    return hidden


def _of_kind(value: Any, kind: type) -> Any:
    """The value, or an empty one where it is of another kind."""
    return value if isinstance(value, kind) else kind()
