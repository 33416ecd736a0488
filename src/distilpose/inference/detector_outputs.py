"""Converts the outputs of an ONNX detector to boxes and scores of persons.

Layouts:

- `yolo`: (1, 4 + classes, N): centre and size, then a score for each class. YOLOv8, YOLO11.
- `yolo_objectness`: (1, N, 5 + classes): centre and size, objectness, then a score for each class; the product is the score.
  YOLOv5, YOLOX.
- `rows`: (N, 6) or (1, N, 6), duplicates already suppressed: two corners, score, class. YOLOv10, exports with NMS inside.
- `boxes_labels_scores`: three outputs in that order: (N, 4) corners, (N,) classes, (N,) scores. torchvision, DETR.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from distilpose.errors import DistilPoseError

Layout = Literal["yolo", "yolo_objectness", "rows", "boxes_labels_scores"]
BoxFormat = Literal["xyxy", "cxcywh"]


class Detections(NamedTuple):
    """Persons in the detector's input.

    Attributes:
        corners: (N, 4) float64, left, top, right, bottom.
        scores: (N,) float64.
    """

    corners: NDArray[np.float64]
    scores: NDArray[np.float64]


def read_outputs(
    outputs: Sequence[NDArray], layout: Layout, person: int, box_format: BoxFormat | None, source: str
) -> Detections:
    """The persons among a detector's outputs.

    Args:
        outputs: outputs for one image.
        layout: see the module.
        person: index of the class person.
        box_format: corners (xyxy) or centre and size (cxcywh); None is the layout's default.
        source: name of the detector, for error messages.

    Raises:
        DistilPoseError: the outputs do not have that layout.
    """
    try:
        if layout == "boxes_labels_scores":
            boxes, labels, scores = (np.asarray(value, dtype=np.float64) for value in outputs[:3])
            labels, default_format = labels.ravel(), "xyxy"
            boxes, scores = boxes.reshape(len(labels), 4), scores.reshape(len(labels))
        else:
            boxes, labels, scores, default_format = _read_table(
                np.asarray(outputs[0], dtype=np.float64), layout, person
            )
    except (ValueError, IndexError) as error:  # a shape that the layout does not have
        shapes = [tuple(np.shape(value)) for value in outputs]
        raise DistilPoseError(
            f"{source} gives outputs of shapes {shapes}, which is not detector.layout={layout} with class {person}: "
            f"choose another of {', '.join(get_args(Layout))}, or another detector.person."
        ) from error
    is_person = labels == person
    return Detections(_corners(boxes[is_person], box_format or default_format), scores[is_person])


def _read_table(table: NDArray, layout: Layout, person: int) -> tuple[NDArray, NDArray, NDArray, str]:
    """Boxes (N, 4), classes (N,), scores (N,) and the format of the boxes."""
    if table.ndim == 3:
        (table,) = table
    count, _ = table.shape
    if layout == "rows":
        columns = table.reshape(count, 6)
        return columns[:, :4], columns[:, 5], columns[:, 4], "xyxy"
    if layout == "yolo":
        table = table.T
    first = 4 if layout == "yolo" else 5
    classes = table[:, first:] * (table[:, 4:5] if layout == "yolo_objectness" else 1.0)
    # a box belongs to the class of its highest score
    return table[:, :4], classes.argmax(1), classes[:, person], "cxcywh"


def _corners(boxes: NDArray, box_format: str) -> NDArray[np.float64]:
    if box_format == "xyxy":
        return boxes
    centre, half = boxes[:, :2], boxes[:, 2:] / 2
    return np.concatenate([centre - half, centre + half], axis=1)
