"""What an ONNX detector's outputs mean: the layouts in use, each to boxes and scores of persons.

- `yolo`: (1, 4 + classes, N): centre and size, then a score a class. YOLOv8, YOLO11.
- `yolo_objectness`: (1, N, 5 + classes): centre and size, objectness, then a score a class, the score being their product.
  YOLOv5, YOLOX.
- `rows`: (N, 6) or (1, N, 6), doubles already suppressed: two corners, score, class. YOLOv10, exports with suppression inside.
- `boxes_labels_scores`: three outputs in that order: (N, 4) corners, (N,) classes, (N,) scores. torchvision, DETR.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from distilpose.errors import DistilPoseError

LAYOUTS = ("yolo", "yolo_objectness", "rows", "boxes_labels_scores")


class Found(NamedTuple):
    """Persons in the detector's input.

    Attributes:
        corners: (N, 4) float64, left, top, right, bottom.
        scores: (N,) float64.
    """

    corners: NDArray[np.float64]
    scores: NDArray[np.float64]


def read_outputs(outputs: Sequence[NDArray], layout: str, person: int, box_format: str | None, source: str) -> Found:
    """The persons among a detector's outputs.

    Args:
        outputs: of one image.
        layout: one of `LAYOUTS`.
        person: the class that is a person.
        box_format: xyxy or cxcywh; None for the layout's own.
        source: the detector's name, for messages.

    Raises:
        DistilPoseError: the outputs are not of that layout.
    """
    shapes = [tuple(np.shape(value)) for value in outputs]
    wrong = DistilPoseError(
        f"{source} gives outputs of shapes {shapes}, which is not detector.layout={layout} with class {person}: "
        f"choose another of {', '.join(LAYOUTS)}, or another detector.person."
    )
    if layout == "boxes_labels_scores":
        if len(outputs) < 3:
            raise wrong
        boxes, labels, scores = (np.asarray(value, dtype=np.float64) for value in outputs[:3])
        boxes, labels, scores = boxes.reshape(-1, 4) if boxes.size % 4 == 0 else boxes, labels.ravel(), scores.ravel()
        if boxes.ndim != 2 or not len(boxes) == len(labels) == len(scores):
            raise wrong
        chosen = labels == person
        return Found(_corners(boxes[chosen], box_format or "xyxy"), scores[chosen])
    table = np.asarray(outputs[0], dtype=np.float64)
    if table.ndim == 3 and table.shape[0] == 1:
        table = table[0]
    if table.ndim != 2:
        raise wrong
    if layout == "rows":
        if table.shape[1] != 6:
            raise wrong
        chosen = table[:, 5] == person
        return Found(_corners(table[chosen, :4], box_format or "xyxy"), table[chosen, 4])
    first = 4 if layout == "yolo" else 5
    if layout == "yolo":
        table = table.T
    if table.shape[1] <= first + person:
        raise wrong
    classes = table[:, first:] * (table[:, 4:5] if layout == "yolo_objectness" else 1.0)
    # a box is of the class it scores highest for
    chosen = classes.argmax(1) == person
    return Found(_corners(table[chosen, :4], box_format or "cxcywh"), classes[chosen, person])


def _corners(boxes: NDArray, box_format: str) -> NDArray[np.float64]:
    if box_format == "xyxy":
        return boxes
    centre, half = boxes[:, :2], boxes[:, 2:] / 2
    return np.concatenate([centre - half, centre + half], axis=1)
