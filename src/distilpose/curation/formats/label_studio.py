"""Label Studio's JSON export: key points and rectangles in percent of the image."""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import numpy as np

from distilpose.curation.formats.common import Person, Source, image_index, is_size, read_foreign_json
from distilpose.curation.formats.regions import Box, Drawn, Point, category_of_names, choose_boxes, persons_of_all
from distilpose.curation.image_files import find_inside, read_header
from distilpose.errors import DistilPoseError

_UPLOADED = re.compile(r"^[0-9a-f]{8}-")  # put before the name of an uploaded file


def read(source: Source) -> tuple[list[Person], dict[str, Any]]:
    """The persons of all tasks, by the first annotation of each that was not cancelled."""
    tasks = read_foreign_json(source.path)
    if not isinstance(tasks, list) or not all(isinstance(task, dict) for task in tasks):
        raise DistilPoseError(f"{source.path} is no list of tasks: export from Label Studio as JSON.")
    if tasks and not any("annotations" in task for task in tasks):
        raise DistilPoseError(f"{source.path} has no 'annotations' in its tasks: export as JSON, not JSON-MIN.")
    index = image_index(source.images)
    drawn = [one for task in tasks if (one := _task(task, index, source)) is not None]
    category = category_of_names(source, {point.name for one in drawn for point in one.points})
    if not category["keypoints"]:
        raise DistilPoseError(
            f"{source.path} holds no key points (regions of type 'keypointlabels'): nothing to convert."
        )
    choose_boxes(drawn, source)
    return persons_of_all(drawn, category["keypoints"], source), category


def _task(task: dict[str, Any], index: dict[str, list[str]], source: Source) -> Drawn | None:
    data = _of_kind(task.get("data"), dict)
    texts = [value for value in data.values() if isinstance(value, str)]
    address = data.get("image") or data.get("img") or next((text for text in texts if "." in text), None)
    name = _image_name(address, index) if isinstance(address, str) else None
    if name is None:
        source.left_out["tasks whose image is not in the folder, or several times"] += 1
        return None
    done = [
        one for one in _of_kind(task.get("annotations"), list) if isinstance(one, dict) and not one.get("was_cancelled")
    ]
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
    results = [one for one in _of_kind(done[0].get("result"), list) if isinstance(one, dict)]
    drawn = Drawn(name, size)
    parents = _relations(results)
    others = {str(one.get("id")) for one in results if _is_rectangle(one) and not _is_wanted(one, source)}
    for region in results:
        if isinstance(region.get("value"), dict):
            _region(region, drawn, parents, others, source)
    return drawn


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


def _region(region: dict[str, Any], drawn: Drawn, parents: dict[str, str], others: set[str], source: Source) -> None:
    """Add a rectangle or a key point; its percents count of the file, which may be smaller than what was labelled."""
    kind, value, number = region.get("type"), region["value"], str(region.get("id"))
    if kind not in ("keypointlabels", "rectanglelabels", "keypoint", "rectangle"):
        if kind not in (None, "choices"):
            source.left_out[f"regions of type {str(kind)[:40]}"] += 1
        return
    group = parents.get(number) or (str(region["parentID"]) if region.get("parentID") else None)
    if group in others or (_is_rectangle(region) and number in others):
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
    drawn.points.append(Point(labels[0], scaled[0], scaled[1], 2, group))


def _relations(results: list[dict[str, Any]]) -> dict[str, str]:
    """Of each region that a relation joins to a rectangle: the rectangle's id."""
    boxes = {str(one.get("id")) for one in results if _is_rectangle(one)}
    parents = {}
    for one in results:
        if one.get("type") == "relation":
            start, end = str(one.get("from_id")), str(one.get("to_id"))
            if end in boxes:
                parents[start] = end
            elif start in boxes:
                parents[end] = start
    return parents


def _of_kind(value: Any, kind: type) -> Any:
    """The value, or an empty one where it is of another kind."""
    return value if isinstance(value, kind) else kind()


def _image_name(address: str, index: dict[str, list[str]]) -> str | None:
    """The image of the folder that an address means: an upload, a local file, a URL or a path."""
    try:
        parts = urlsplit(address)
        path = parse_qs(parts.query).get("d", [parts.path])[0]
    except ValueError:
        return None
    base = PurePosixPath(unquote(path).replace("\\", "/")).name
    for name in (base, _UPLOADED.sub("", base)):
        if len(index.get(name, [])) == 1:
            return index[name][0]
        fits = [one for one in index.get(name, []) if path.endswith("/" + one)]
        if len(fits) == 1:
            return fits[0]
    return None
