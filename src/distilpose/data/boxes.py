"""Person boxes: the ground-truth boxes of an annotation file, or a detector's."""

from __future__ import annotations

import logging
import warnings
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from distilpose.data.annotations import KeypointAnnotations, numbers, read_json, required
from distilpose.data.units import check_pixels, corners_sentence
from distilpose.errors import DistilPoseError

log = logging.getLogger(__name__)

SCORE_LIMIT = 1.001  # scores are at most 1, but for rounding


class Instances(NamedTuple):
    """Persons to crop, as arrays because these are cheap to send to worker processes.

    Attributes:
        annotation_ids: (M,) int64; for detector boxes the index of the box.
        image_ids: (M,) int64.
        boxes: (M, 4) x, y, width, height in image pixels.
        scores: (M,) float32 detector score; 1 for ground truth.
        keypoints: (M, K, 2) float32 image pixels; zero for detector boxes.
        labelled: (M, K) bool.
    """

    annotation_ids: NDArray[np.int64]
    image_ids: NDArray[np.int64]
    boxes: NDArray[np.float64]
    scores: NDArray[np.float32]
    keypoints: NDArray[np.float32]
    labelled: NDArray[np.bool_]

    def take(self, chosen: NDArray | slice) -> Instances:
        """The persons at these indices."""
        return Instances._make(field[chosen] for field in self)


def ground_truth_instances(annotations: KeypointAnnotations) -> Instances:
    """The annotated persons, with boxes clipped to their images as in every top-down method.

    x1 = max(0, x), x2 = min(W - 1, x1 + max(0, w - 1)), and the same for y. Persons without area or with an empty box
    are left out, with a warning that gives their number.

    Raises:
        DistilPoseError: no person is left, or an image with persons has no size.
    """
    sizes = np.array([annotations.images[number][1:] for number in annotations.image_ids.tolist()], dtype=np.float64)
    if (unsized := (sizes <= 0).any(1)).any():
        raise DistilPoseError(
            f"{unsized.sum()} persons in {annotations.path} are on images whose width or height is 0 (first image "
            f"{annotations.image_ids[unsized][0]}): write the images' sizes in pixels."
        )
    if doubt := corners_sentence(annotations.boxes, sizes):
        warnings.warn(f"{annotations.path}: {doubt}", stacklevel=2)
    corner = np.maximum(annotations.boxes[:, :2], 0)
    opposite = np.minimum(sizes - 1, corner + np.maximum(annotations.boxes[:, 2:] - 1, 0))
    boxes = np.concatenate([corner, opposite - corner], axis=1)
    kept = (annotations.areas > 0) & (boxes[:, 2:] > 0).all(axis=1)
    persons = Instances(
        annotations.annotation_ids,
        annotations.image_ids,
        boxes,
        np.ones(len(boxes), dtype=np.float32),
        annotations.keypoints,
        annotations.labelled,
    )
    return _drop_empty(persons, kept, annotations.path)


def keep_labels(instances: Instances, share: float, unlabelled: bool) -> Instances:
    """Remove the labels of all but a share of the persons.

    Args:
        instances: labelled persons.
        share: share of the persons that keep their labels, in [0, 1]. The choice is always the same, and a smaller share is a
            subset of a larger one.
        unlabelled: whether the other persons are kept, without labels.

    Raises:
        DistilPoseError: no person is left.
    """
    if share == 1:
        return instances
    has: NDArray[np.bool_] = np.any(instances.labelled, axis=1)
    order = np.random.default_rng(0).permutation(np.flatnonzero(has))
    kept = np.zeros(len(has), dtype=np.bool_)
    kept[order[: round(share * len(order))]] = True
    if not unlabelled and not kept.any():
        raise DistilPoseError(
            f"data.label_share={share} leaves none of {len(order)} persons with labels: raise it, or give "
            "data.unlabelled=true to train on persons without labels by a teacher."
        )
    fewer = instances._replace(labelled=instances.labelled & kept[:, None])
    return fewer if unlabelled else fewer.take(kept)


def detector_instances(path: str | Path, annotations: KeypointAnnotations, score_threshold: float = 0.0) -> Instances:
    """Detector boxes for the images of an annotation file, without clipping.

    A warning counts the persons on images without any box, which an evaluation counts as missed: a file of another detector's
    run may have boxes for a part of the images only.

    Args:
        path: JSON list of {image_id, category_id, bbox, score}; rows of other categories are skipped and counted.
        annotations: annotation file of the images; gives the category of the boxes.
        score_threshold: boxes with a lower score are left out.

    Raises:
        DistilPoseError: the file is no list, a row is wrong, an image is not in the annotation file, or no box is left.
    """
    rows = read_json(path, "Detector-box file", "give the file with data.boxes, or use ground-truth boxes")
    if not isinstance(rows, list):
        raise DistilPoseError(
            f"Detector-box file {path} is no list: expected rows of image_id, category_id, bbox and score."
        )
    image_ids, boxes, scores = [], [], []
    unknown: set[int] = set()
    others: Counter[int] = Counter()
    low = 0
    for index, row in enumerate(rows):
        image_id, category_id, bbox, score = (
            required(row, key, f"Detector box {index}", path) for key in ("image_id", "category_id", "bbox", "score")
        )
        box = numbers(bbox, 4, f"'bbox' of detector box {index} in {path}")
        (score,) = numbers([score], 1, f"'score' of detector box {index} in {path}").tolist()
        if image_id not in annotations.images:
            unknown.add(image_id)
        elif category_id != annotations.category_id:
            others[category_id] += 1
        elif score < score_threshold:
            low += 1
        else:
            image_ids.append(image_id)
            boxes.append(box)
            scores.append(score)
    if unknown:
        some = ", ".join(str(number) for number in sorted(unknown)[:5])
        raise DistilPoseError(
            f"Detector-box file {path} has boxes for {len(unknown)} image(s) that are not in {annotations.path} "
            f"(ids {some}{', …' if len(unknown) > 5 else ''}): give boxes and annotations of the same split."
        )
    if low:
        log.info(f"{path}: {low} of {len(rows)} boxes have a score below {score_threshold:g} and are left out.")
    count, joints = len(boxes), annotations.skeleton.num_keypoints
    stacked = np.array(boxes).reshape(-1, 4)
    check_pixels(stacked, f"Detector-box file {path}", "bbox", "x, y, width and height")
    if score_threshold > 0 and max(scores, default=0) > SCORE_LIMIT:
        raise DistilPoseError(
            f"Detector-box file {path} has scores up to {max(scores):g}, and data.score_threshold={score_threshold:g} is for "
            "scores up to 1: divide them (by 100 if they are per cent), or give data.score_threshold=0."
        )
    sizes = np.array([annotations.images[number][1:] for number in image_ids], dtype=np.float64).reshape(-1, 2)
    doubts = [corners_sentence(stacked, sizes)]
    if others:
        zero = f"; {others[0]} have 0, where tools that count from 0 have the person" if others[0] else ""
        doubts.append(f"{others.total()} rows of other categories than {annotations.category_id} are left out{zero}.")
    if count and (missed := ~np.isin(annotations.image_ids, image_ids)).any():
        of, alone = np.unique(annotations.image_ids), np.unique(annotations.image_ids[missed])
        doubts.append(
            f"{len(alone)} of {len(of)} images with persons have no box: the {missed.sum()} persons there count as missed."
        )
    for doubt in filter(None, doubts):
        warnings.warn(f"{path}: {doubt}", stacklevel=2)
    persons = Instances(
        np.arange(count, dtype=np.int64),
        np.array(image_ids, dtype=np.int64),
        stacked,
        np.array(scores, dtype=np.float32),
        np.zeros((count, joints, 2), dtype=np.float32),
        np.zeros((count, joints), dtype=bool),
    )
    return _drop_empty(persons, np.all(stacked[:, 2:] > 0, axis=1), path)


def _drop_empty(instances: Instances, kept: NDArray[np.bool_], path: str | Path) -> Instances:
    """The instances to keep, with a warning about the others."""
    dropped = int((~kept).sum())
    if dropped == len(kept):
        raise DistilPoseError(
            f"No person box in {path} can be used ({dropped} are empty): expected boxes of the chosen category, with a width, "
            "height and area above 0, and a score of at least data.score_threshold."
        )
    if dropped:
        first = instances.annotation_ids[~kept][:3].tolist()
        warnings.warn(
            f"{dropped} person(s) in {path} are skipped: their box or area is empty (first ids {first}). AP counts annotated "
            "ones as missed.",
            stacklevel=3,
        )
        return instances.take(kept)
    return instances
