"""Converts the outputs of an ONNX detector to boxes and scores of persons.

Layouts:

- `yolo`: (1, 4 + classes, N), or (1, N, 4 + classes) if the file states its classes: centre and size, then a score for each
  class. YOLOv8, YOLO11; ultralytics' RT-DETR.
- `yolo_objectness`: (1, N, 5 + classes): centre and size, objectness, then a score for each class; the product is the score.
  YOLOv5, YOLOX.
- `rows`: (N, 6) or (1, N, 6), duplicates already suppressed: two corners, score, class. YOLOv10, exports with NMS inside;
  columns after these, such as keypoints or masks, are ignored.
- `dets_labels`: (1, N, 5) corners and score, and (1, N) classes, duplicates already suppressed. mmdeploy; rtmlib's YOLOX and
  RTMDet.
- `boxes_scores`: (1, N, 4) corners, and (1, N, classes) scores.
- `boxes_labels_scores`: three outputs in that order, or of these names: (N, 4) corners, (N,) classes, (N,) scores. torchvision,
  RT-DETR. Without names the one of whole numbers (int64) is the classes: torchvision's RetinaNet gives them last.

`auto` takes the layout that names, shapes and values of the outputs imply. Classes that are no whole numbers and scores outside
0 to 1 show another layout, and are an error. Outputs of several heads are joined for the first three, and
outputs that the layout does not have, such as masks, are ignored.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from distilpose.errors import DistilPoseError, first_line

log = logging.getLogger(__name__)

Layout = Literal["auto", "yolo", "yolo_objectness", "rows", "dets_labels", "boxes_scores", "boxes_labels_scores"]
BoxFormat = Literal["xyxy", "cxcywh"]
_MAX_SUPPRESSED = 1000  # more rows are all cells of a grid


class Detections(NamedTuple):
    """Persons in the detector's input.

    Attributes:
        corners: (N, 4) float64, left, top, right, bottom.
        scores: (N,) float64.
        reach: largest coordinate of the boxes of all classes: of centres, or of the first corners.
    """

    corners: NDArray[np.float64]
    scores: NDArray[np.float64]
    reach: float


def choose_layout(outputs: Mapping[str, NDArray], source: str, classes: int | None = None) -> Layout:
    """The layout that names, shapes and values of the outputs imply.

    Args:
        outputs: outputs for one image, by name.
        source: name of the detector, for messages.
        classes: number of classes, if the file states it.

    Raises:
        DistilPoseError: they imply none.
    """
    shapes = {name: np.shape(value) for name, value in outputs.items()}
    first, *others = (shape[1:] if len(shape) == 3 and shape[0] == 1 else shape for shape in shapes.values())
    rows, columns = first if len(first) == 2 else (0, 0)
    # a table of all cells, (1, …), which holds the boxes: (N, 7) of YOLOv7 begins with the number of the image
    table = next(iter(outputs.values()))
    heads = [shape for shape in others if shape[1:] == (columns,)]
    is_grid = np.ndim(table) == 3 and (rows, 4) not in others
    one_each = [math.prod(shape) == rows for shape in others]  # a number for each row
    layout: Layout | None = None
    if _roles(outputs).keys() >= {"boxes", "labels", "scores"}:
        layout = "boxes_labels_scores"
    elif columns == 5 and one_each[:1] == [True]:
        layout = "dets_labels"
    elif columns == 4 and one_each[:2] == [True, True]:
        layout = "boxes_labels_scores"
    elif columns == 4 and others and len(others[0]) == 2 and others[0][0] == rows:
        layout = "boxes_scores"
    elif (
        rows <= _MAX_SUPPRESSED and (columns == 6 or (columns > 6 and is_grid and not heads)) and _is_suppressed(table)
    ):
        layout = "rows"
    elif is_grid and (5 <= rows < columns or (classes is not None and columns == 4 + classes)):
        layout = "yolo"
    elif is_grid and columns > 5:
        layout = "yolo_objectness"
    if layout is None:
        raise DistilPoseError(
            f"{source} gives outputs {_shown(shapes)}, of which detector.layout=auto knows no layout: choose one of "
            f"{', '.join(get_args(Layout)[1:])}, or export the detector with its boxes decoded."
        )
    log.info(f"{source}: outputs {_shown(shapes)} are read as detector.layout={layout}.")
    return layout


def read_outputs(
    outputs: Mapping[str, NDArray],
    layout: Layout,
    person: int,
    box_format: BoxFormat | None,
    source: str,
    classes: int | None = None,
) -> Detections:
    """The persons among a detector's outputs.

    Args:
        outputs: outputs for one image, by name.
        layout: see the module.
        person: index of the class person.
        box_format: corners (xyxy) or centre and size (cxcywh); None is the layout's default.
        source: name of the detector, for error messages.
        classes: number of classes, if the file states it; columns after them, such as keypoints or masks, are ignored.

    Raises:
        DistilPoseError: the outputs do not have that layout.
    """
    values = {name: np.asarray(value, dtype=np.float64) for name, value in outputs.items()}
    try:
        if layout in ("dets_labels", "boxes_labels_scores", "boxes_scores"):
            kinds = [np.asarray(value).dtype.kind for value in outputs.values()]
            if layout == "boxes_labels_scores" and kinds[1:3] == ["f", "i"]:
                first, second, third, *others = values.items()
                values = dict([first, third, second, *others])
            boxes, labels, scores = _read_parts(values, layout, person)
            default_format = "xyxy"
        else:
            table = _join_heads([*values.values()], layout, classes)
            if (
                layout == "yolo" and classes is None
            ):  # a row ends with the coefficients of the masks, which are an output too
                masks = next((value.shape[1] for value in values.values() if value.ndim == 4), 0)
                classes = table.shape[1] - 4 - masks
            boxes, labels, scores, default_format = _read_table(table, layout, person, classes)
        _check_values(labels, scores)
    except (ValueError, IndexError) as error:  # a shape or values that the layout does not have
        shapes = {name: np.shape(value) for name, value in outputs.items()}
        raise DistilPoseError(
            f"{source} gives outputs of shapes {_shown(shapes)}, which is not detector.layout={layout} with class {person} "
            f"({first_line(error)}): choose another of {', '.join(get_args(Layout))}, or another detector.person."
        ) from error
    is_person = labels == person
    reach = float(np.nan_to_num(np.abs(boxes[:, :2])).max(initial=0.0))
    return Detections(_corners(boxes[is_person], box_format or default_format), scores[is_person], reach)


def _read_parts(values: Mapping[str, NDArray], layout: Layout, person: int) -> tuple[NDArray, NDArray, NDArray]:
    """Boxes (N, 4), classes (N,) and scores (N,) from outputs of their own."""
    first, second, *others = values.values()
    if layout == "dets_labels":
        rows, labels = first.reshape(-1, 5), second.ravel()
        boxes, scores = rows[:, :4], rows[:, 4]
    elif layout == "boxes_scores":
        boxes = first.reshape(-1, 4)
        table = second.reshape(len(boxes), -1)
        _check_person(person, table)
        labels, scores = table.argmax(1), table.max(1)
    else:
        roles = _roles(values)
        third = others[0]
        boxes, labels, scores = (roles.get(*part) for part in (("boxes", first), ("labels", second), ("scores", third)))
        labels = labels.ravel()
        boxes, scores = boxes.reshape(len(labels), 4), scores.ravel()
    if not len(boxes) == len(labels) == len(scores):
        raise ValueError("lengths differ")
    return boxes, labels, scores


def _is_suppressed(output: NDArray) -> bool:
    """Whether rows are corners, score and class, as after suppression: in a grid of cells no column has whole numbers."""
    scores, labels = np.asarray(output)[..., 4], np.asarray(output)[..., 5]
    return bool((labels == labels.round()).all() and ((scores >= 0) & (scores <= 1)).all())


def _check_person(person: int, table: NDArray) -> None:
    if person >= table.shape[1]:
        raise IndexError(f"it has {table.shape[1]} classes")


def _check_values(labels: NDArray, scores: NDArray) -> None:
    """Raise ValueError for classes and scores that are something else, such as coordinates or logits."""
    known = scores[np.isfinite(scores) & (scores != -1)]  # -1 fills rows without a detection
    if len(known) and not -1e-3 <= known.min() <= known.max() <= 1 + 1e-3:
        raise ValueError(f"its scores are {known.min():.4g} to {known.max():.4g} instead of 0 to 1")
    if not (labels == labels.round()).all():
        raise ValueError("its classes are not whole numbers")


def _join_heads(tables: Sequence[NDArray], layout: Layout, classes: int | None) -> NDArray:
    """One table (rows, columns) of the outputs that have as many columns as the first; for `yolo`, transposed if needed."""
    matrices = [table[0] if table.ndim == 3 and len(table) == 1 else table for table in tables]
    matrices = [
        matrix.T if layout == "yolo" and (classes is None or matrix.shape[1] != 4 + classes) else matrix
        for matrix in matrices
        if matrix.ndim == 2
    ]
    return np.concatenate([matrix for matrix in matrices if matrix.shape[1] == matrices[0].shape[1]])


def _read_table(
    table: NDArray, layout: Layout, person: int, classes: int | None
) -> tuple[NDArray, NDArray, NDArray, str]:
    """Boxes (N, 4), classes (N,), scores (N,) and the format of the boxes."""
    if layout == "rows":
        columns = table[:, :6].reshape(len(table), 6)
        return columns[:, :4], columns[:, 5], columns[:, 4], "xyxy"
    first = 4 if layout == "yolo" else 5
    scores = table[:, first : None if classes is None else first + classes]
    scores = scores * (table[:, 4:5] if layout == "yolo_objectness" else 1.0)
    # a box belongs to the class of its highest score
    _check_person(person, scores)
    return table[:, :4], scores.argmax(1), scores.max(1), "cxcywh"


def _roles(outputs: Mapping[str, NDArray]) -> dict[str, NDArray]:
    """Outputs whose name ends in boxes, labels or scores."""
    return {
        role: value for name, value in outputs.items() for role in ("boxes", "labels", "scores") if name.endswith(role)
    }


def _shown(shapes: Mapping[str, tuple[int, ...]]) -> str:
    return ", ".join(f"{name} {shape}" for name, shape in shapes.items())


def _corners(boxes: NDArray, box_format: str) -> NDArray[np.float64]:
    if box_format == "xyxy":
        return boxes
    centre, half = boxes[:, :2], boxes[:, 2:] / 2
    return np.concatenate([centre - half, centre + half], axis=1)
