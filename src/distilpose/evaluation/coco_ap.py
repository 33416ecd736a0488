"""COCO average precision and recall of keypoints by pycocotools, the implementation that papers use."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from distilpose.data.annotations import AREA_OF_BOX

COCO_METRICS = ("AP", "AP50", "AP75", "APM", "APL", "AR", "AR50", "AR75", "ARM", "ARL")


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

    As in COCO, crowds and persons without labelled joints are ignored, and at most 20 persons per image count.

    Args:
        annotations: COCO annotation file, or pycocotools' `COCO` of it.
        rows: COCO result rows (image_id, category_id, keypoints of 3K numbers, score).
        sigmas: (K,) OKS constants.
        category_id: the category to score.

    Returns:
        metrics: AP, AP50, AP75, APM, APL, AR, AR50, AR75, ARM, ARL in [0, 1]; -1 if the set has no such person.
        precision: (10, 101) for persons of all sizes, at OKS 0.5, 0.55, … 0.95 and recall 0, 0.01, … 1; -1 if the set
            has no person.
    """
    truth = load_coco(annotations)
    for annotation in truth.dataset["annotations"]:
        _set_defaults(annotation, len(sigmas))
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


def subset_of(annotations: COCO, annotation_ids: Collection[int]) -> COCO:
    """The annotations of these persons only, for predictions of the first few persons.

    Crowds and persons without labelled joints are kept: they cannot be missed, but a detection on them is no error.
    """
    wanted = set(annotation_ids)
    kept = [
        annotation
        for annotation in annotations.dataset["annotations"]
        if annotation["id"] in wanted or annotation.get("iscrowd", 0) or not any(annotation.get("keypoints", ())[2::3])
    ]
    part = COCO()
    part.dataset = {**annotations.dataset, "annotations": kept}
    with contextlib.redirect_stdout(io.StringIO()):
        part.createIndex()
    return part


def _set_defaults(annotation: dict[str, Any], num_keypoints: int) -> None:
    """Add the fields that pycocotools needs and a custom set may lack."""
    keypoints = annotation.setdefault("keypoints", [0] * (3 * num_keypoints))
    annotation.setdefault("num_keypoints", sum(v > 0 for v in keypoints[2::3]))
    annotation.setdefault("bbox", [0, 0, 0, 0])
    annotation["iscrowd"] = annotation.get("iscrowd") or 0
    annotation.setdefault("area", AREA_OF_BOX * annotation["bbox"][2] * annotation["bbox"][3])


def _results(truth: COCO, rows: Sequence[dict[str, Any]]) -> COCO:
    """Result rows as pycocotools' `COCO`. `loadRes` changes the rows, so it gets copies, and it fails on an empty list."""
    if rows:
        return truth.loadRes([dict(row) for row in rows])
    empty = COCO()
    empty.dataset = {"images": truth.dataset["images"], "annotations": []}
    empty.createIndex()
    return empty
