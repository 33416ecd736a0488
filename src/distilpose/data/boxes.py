"""Person boxes: the ground-truth boxes of an annotation file, or a detector's."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from distilpose.data.annotations import KeypointAnnotations, numbers, read_json, required
from distilpose.errors import DistilPoseError


class Instances(NamedTuple):
    """Persons to crop, as arrays so that a worker process gets them cheaply.

    Attributes:
        annotation_ids: (M,) int64; the running number of the box for a detector's boxes.
        image_ids: (M,) int64.
        boxes: (M, 4) x, y, width, height in image pixels.
        scores: (M,) float32 detector's score; 1 for ground truth.
        keypoints: (M, K, 2) float32 image pixels; zero for a detector's boxes.
        labelled: (M, K) bool.
    """

    annotation_ids: NDArray[np.int64]
    image_ids: NDArray[np.int64]
    boxes: NDArray[np.float64]
    scores: NDArray[np.float32]
    keypoints: NDArray[np.float32]
    labelled: NDArray[np.bool_]

    def take(self, chosen: NDArray | slice) -> Instances:
        """The persons at these places."""
        return Instances._make(field[chosen] for field in self)


def ground_truth_instances(annotations: KeypointAnnotations) -> Instances:
    """The annotated persons, with boxes clipped to their images by the rule every top-down paper's numbers rest on.

    x1 = max(0, x), x2 = min(W - 1, x1 + max(0, w - 1)), alike for y. Persons without area or with an empty box are left
    out, with a warning that says how many.

    Raises:
        DistilPoseError: if none is left.
    """
    sizes = np.array([annotations.images[number][1:] for number in annotations.image_ids.tolist()], dtype=np.float64)
    corner = np.maximum(annotations.boxes[:, :2], 0)
    opposite = np.minimum(sizes - 1, corner + np.maximum(annotations.boxes[:, 2:] - 1, 0))
    boxes = np.concatenate([corner, opposite - corner], axis=1)
    kept = (annotations.areas > 0) & (boxes[:, 2:] > 0).all(axis=1)
    everyone = Instances(
        annotations.annotation_ids,
        annotations.image_ids,
        boxes,
        np.ones(len(boxes), dtype=np.float32),
        annotations.keypoints,
        annotations.labelled,
    )
    return _without_empty(everyone, kept, annotations.path)


def keep_labels(instances: Instances, share: float, unlabelled: bool) -> Instances:
    """The persons with labels for a share of them.

    Args:
        instances: labelled persons.
        share: of them, who keep their labels; the same ones each time, and those of a smaller share among those of a larger.
        unlabelled: whether the others stay, without labels.

    Raises:
        DistilPoseError: if the share is no share, or none is left.
    """
    if share == 1:
        return instances
    has: NDArray[np.bool_] = np.any(instances.labelled, axis=1)
    order = np.random.default_rng(0).permutation(np.flatnonzero(has))
    kept = np.zeros(len(has), dtype=np.bool_)
    kept[order[: round(share * len(order))]] = True
    if not unlabelled and not kept.any():
        raise DistilPoseError(
            f"data.label_share={share} leaves none of {len(order)} persons with labels: raise it, or pass "
            "data.unlabelled=true to train on persons without labels by a teacher."
        )
    fewer = instances._replace(labelled=instances.labelled & kept[:, None])
    return fewer if unlabelled else fewer.take(kept)


def detector_instances(path: str | Path, annotations: KeypointAnnotations, score_threshold: float = 0.0) -> Instances:
    """A detector's boxes for the images of an annotation file, used as they are.

    Args:
        path: JSON list of {image_id, category_id, bbox, score}; rows of other categories are skipped.
        annotations: the images the boxes must belong to, and the category they must be of.
        score_threshold: boxes below it are left out.

    Raises:
        DistilPoseError: for a bad row, a box of an image the annotation file does not know, or an empty rest.
    """
    rows = read_json(path, "Detector-box file", "give the file with data.boxes, or use ground-truth boxes")
    if not isinstance(rows, list):
        raise DistilPoseError(
            f"Detector-box file {path} holds a {type(rows).__name__}, "
            "expected a list of {image_id, category_id, bbox, score}."
        )
    image_ids, boxes, scores = [], [], []
    unknown: set[int] = set()
    for index, row in enumerate(rows):
        image_id, category_id, bbox, score = (
            required(row, key, f"Detector box {index}", path) for key in ("image_id", "category_id", "bbox", "score")
        )
        box = numbers(bbox, 4, f"'bbox' of detector box {index} in {path}")
        (score,) = numbers([score], 1, f"'score' of detector box {index} in {path}").tolist()
        if image_id not in annotations.images:
            unknown.add(image_id)
        elif category_id == annotations.category_id and score >= score_threshold:
            image_ids.append(image_id)
            boxes.append(box)
            scores.append(score)
    if unknown:
        some = ", ".join(str(number) for number in sorted(unknown)[:5])
        raise DistilPoseError(
            f"Detector-box file {path} has boxes for {len(unknown)} image(s) that {annotations.path} does not know "
            f"(ids {some}{', …' if len(unknown) > 5 else ''}): give the boxes and the annotations of one split."
        )
    if not boxes:
        raise DistilPoseError(
            f"Detector-box file {path} has no box of category {annotations.category_id} with a score of at least "
            f"{score_threshold} ({len(rows)} rows): lower data.score_threshold or give another file."
        )
    count, joints = len(boxes), annotations.skeleton.num_keypoints
    stacked = np.stack(boxes)
    found = Instances(
        np.arange(count, dtype=np.int64),
        np.array(image_ids, dtype=np.int64),
        stacked,
        np.array(scores, dtype=np.float32),
        np.zeros((count, joints, 2), dtype=np.float32),
        np.zeros((count, joints), dtype=bool),
    )
    return _without_empty(found, np.all(stacked[:, 2:] > 0, axis=1), path)


def _without_empty(instances: Instances, kept: NDArray[np.bool_], path: str | Path) -> Instances:
    """Instances whose box shows anything; says how many do not."""
    dropped = int((~kept).sum())
    if dropped == len(kept):
        raise DistilPoseError(
            f"All {dropped} person boxes in {path} are empty: expected width, height and area above 0."
        )
    if dropped:
        first = instances.annotation_ids[~kept][:3].tolist()
        warnings.warn(
            f"{dropped} person(s) in {path} left out, their box or area is empty (first ids {first}).", stacklevel=3
        )
        return instances.take(kept)
    return instances
