"""COCO average precision and recall of keypoints by pycocotools, the implementation that papers use."""

from __future__ import annotations

import contextlib
import io
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from distilpose.data.units import area_of, is_crowd

COCO_METRICS = ("AP", "AP50", "AP75", "APM", "APL", "AR", "AR50", "AR75", "ARM", "ARL")
RESULT_FIELDS = ("image_id", "category_id", "keypoints", "score")
MAX_PERSONS = 20  # of an image, in COCO's keypoint metrics


def load_coco(annotations: str | Path | COCO) -> COCO:
    """An annotation file as pycocotools' `COCO`, without its prints; a `COCO` is returned unchanged."""
    if isinstance(annotations, COCO):
        return annotations
    with contextlib.redirect_stdout(io.StringIO()):
        return COCO(str(annotations))


def coco_metrics(
    annotations: str | Path | COCO,
    rows: Sequence[dict[str, Any]],
    sigmas: Sequence[float],
    category_id: int = 1,
) -> dict[str, float]:
    """COCO's ten keypoint metrics over all images of the annotation file; see `coco_evaluation`."""
    return coco_evaluation(annotations, rows, sigmas, category_id)[0]


def coco_evaluation(
    annotations: str | Path | COCO,
    rows: Sequence[dict[str, Any]],
    sigmas: Sequence[float],
    category_id: int = 1,
) -> tuple[dict[str, float], NDArray[np.float64]]:
    """COCO's ten keypoint metrics, equal to pycocotools' bit for bit, and the precision-recall curves.

    As in COCO, crowds and persons without labelled joints are ignored, and at most 20 persons per image count (see
    `beyond_limit`). Annotations may have any ids: pycocotools reads the id 0 as "no match", so it gets renumbered copies.
    Only the joints and scores of the rows count: from a `bbox` pycocotools would take another size of the person.

    Args:
        annotations: COCO annotation file, or pycocotools' `COCO` of it, which is not changed.
        rows: COCO result rows (image_id, category_id, keypoints of 3K numbers, score). Those of other categories do not
            count.
        sigmas: (K,) OKS constants.
        category_id: the category to score.

    Returns:
        metrics: AP, AP50, AP75, APM, APL, AR, AR50, AR75, ARM, ARL in [0, 1]; -1 if the set has no such person.
        precision: (10, 101) for persons of all sizes, at OKS 0.5, 0.55, … 0.95 and recall 0, 0.01, … 1; -1 if the set
            has no person.
    """
    truth = _renumbered(load_coco(annotations), category_id, len(sigmas))
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation = COCOeval(truth, _results(truth, rows), "keypoints")
        evaluation.params.catIds = [category_id]
        # pycocotools writes its sigmas as tenths, and 0.26 / 10 is not the same float as 0.026
        evaluation.params.kpt_oks_sigmas = np.round(np.asarray(sigmas, float) * 10, 9) / 10.0
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    metrics = dict(zip(COCO_METRICS, (float(value) for value in evaluation.stats), strict=True))
    # axes: OKS thresholds, recalls, categories, sizes, limits of persons per image
    return metrics, evaluation.eval["precision"][:, :, 0, evaluation.params.areaRngLbl.index("all"), -1]


def beyond_limit(rows: Sequence[dict[str, Any]], category_id: int = 1) -> str | None:
    """A sentence on the images with more persons than COCO counts; None if there are none."""
    counts = Counter(row["image_id"] for row in rows if row["category_id"] == category_id)
    crowded = [(number, image) for image, number in counts.most_common() if number > MAX_PERSONS]
    if not crowded:
        return None
    number, image = crowded[0]
    others = f", and more than {MAX_PERSONS} on {len(crowded) - 1} other images" if len(crowded) > 1 else ""
    return (
        f"{number} persons on image {image}{others}: COCO counts {MAX_PERSONS}, those with the highest scores, so AP and AR "
        "miss the rest."
    )


def is_counted(annotation: Mapping[str, Any], category_id: int) -> bool:
    """Whether a person counts in COCO's metrics: of the category, no crowd, with labelled joints."""
    labelled = sum(v > 0 for v in (annotation.get("keypoints") or ())[2::3])
    return annotation["category_id"] == category_id and not is_crowd(annotation) and labelled > 0


def subset_of(annotations: COCO, annotation_ids: Collection[int]) -> COCO:
    """The annotations of these persons only, for predictions of a part of the persons.

    Crowds and persons without labelled joints are kept: they cannot be missed, but a detection on them is no error.
    """
    wanted = set(annotation_ids)
    return _coco_of(
        annotations,
        [
            annotation
            for annotation in annotations.dataset["annotations"]
            if annotation["id"] in wanted or not is_counted(annotation, annotation["category_id"])
        ],
    )


def without_joints(annotations: COCO, joints: Collection[int]) -> COCO:
    """The annotations without labels of these joints, for predictions of the others only."""
    part = []
    for annotation in annotations.dataset["annotations"]:
        rows = np.array(annotation.get("keypoints") or [], dtype=np.float64).reshape(-1, 3)
        rows[[joint for joint in joints if joint < len(rows)]] = 0
        part.append({**annotation, "keypoints": rows.ravel().tolist()})
    return _coco_of(annotations, part)


def _renumbered(truth: COCO, category_id: int, num_keypoints: int) -> COCO:
    """Copies of a category's annotations in their order, with ids from 1 and the fields that pycocotools needs.

    pycocotools writes into annotations, and keeps the last of those with the same id.
    """
    chosen = (entry for entry in truth.dataset["annotations"] if entry["category_id"] == category_id)
    return _coco_of(truth, [_complete(entry, number, num_keypoints) for number, entry in enumerate(chosen, start=1)])


def _complete(annotation: dict[str, Any], number: int, num_keypoints: int) -> dict[str, Any]:
    """A copy with this id, the number of its labelled joints, and defaults for fields that a custom set may lack."""
    keypoints = annotation.get("keypoints") or [0] * (3 * num_keypoints)
    return {
        "bbox": [0, 0, 0, 0],
        **annotation,
        "num_keypoints": sum(v > 0 for v in keypoints[2::3]),
        "id": number,
        "keypoints": keypoints,
        "area": area_of(annotation),
        "iscrowd": int(is_crowd(annotation)),
    }


def _coco_of(truth: COCO, annotations: list[dict[str, Any]]) -> COCO:
    """A pycocotools' `COCO` of the same images and categories with these annotations."""
    part = COCO()
    part.dataset = {**truth.dataset, "annotations": annotations}
    with contextlib.redirect_stdout(io.StringIO()):
        part.createIndex()
    return part


def _results(truth: COCO, rows: Sequence[dict[str, Any]]) -> COCO:
    """Result rows as pycocotools' `COCO`.

    `loadRes` changes the rows, so it gets copies. It fails on an empty list. And other fields of the first row, such as
    `bbox`, would decide how it reads all of them.
    """
    if rows:
        return truth.loadRes([{field: row[field] for field in RESULT_FIELDS} for row in rows])
    return _coco_of(truth, [])
