"""COCO average precision and recall of keypoints, by pycocotools: the reference that papers report."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from distilpose.data.annotations import AREA_OF_BOX
from distilpose.errors import DistilPoseError

COCO_METRICS = ("AP", "AP50", "AP75", "APM", "APL", "AR", "AR50", "AR75", "ARM", "ARL")


def load_coco(annotations: str | Path | COCO) -> COCO:
    """The annotation file as pycocotools' `COCO`, without its prints; one already loaded is given back.

    Raises:
        DistilPoseError: the file is missing or not a COCO annotation file.
    """
    if isinstance(annotations, COCO):
        return annotations
    if not Path(annotations).is_file():
        raise DistilPoseError(f"No annotation file at {annotations}: give one in COCO keypoint format.")
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            return COCO(str(annotations))
    except (json.JSONDecodeError, UnicodeDecodeError, AssertionError, KeyError, TypeError) as error:
        raise DistilPoseError(
            f"{annotations} is not a COCO annotation file ({type(error).__name__}: {error}): expected one JSON object "
            "with 'images', 'annotations' and 'categories'."
        ) from error


def keypoint_category(annotations: COCO, num_keypoints: int) -> int:
    """Id of the first category that has this many keypoints."""
    counts = {cat["id"]: len(cat.get("keypoints") or ()) for cat in annotations.dataset.get("categories", ())}
    for category_id, count in counts.items():
        if count == num_keypoints:
            return category_id
    raise DistilPoseError(
        f"No category of the annotation file has {num_keypoints} keypoints (category id: count is {counts}): "
        "evaluate on a set with the skeleton the predictions were made for."
    )


def coco_metrics(
    annotations: str | Path | COCO,
    rows: Sequence[dict[str, Any]],
    sigmas: Sequence[float],
    category_id: int | None = None,
) -> dict[str, float]:
    """The ten keypoint figures of COCO over all images of the annotation file, equal to pycocotools' to the last bit.

    Takes what `coco_evaluation` takes, and gives the first of what that gives.
    """
    return coco_evaluation(annotations, rows, sigmas, category_id)[0]


def coco_evaluation(
    annotations: str | Path | COCO,
    rows: Sequence[dict[str, Any]],
    sigmas: Sequence[float],
    category_id: int | None = None,
) -> tuple[dict[str, float], NDArray[np.float64]]:
    """COCO's figures, and the curves they are the means of.

    As in COCO, crowds and persons without labelled joints neither count nor hurt, and at most 20 persons an image
    count.

    Args:
        annotations: COCO annotation file, or pycocotools' `COCO` of it.
        rows: COCO result rows (image_id, category_id, keypoints of 3K numbers, score).
        sigmas: (K,) OKS constants.
        category_id: the category to score; by default the first with K keypoints.

    Returns:
        AP, AP50, AP75, APM, APL, AR, AR50, AR75, ARM, ARL in [0, 1]; -1 where no such person is in the set. And (10, 101)
        precision of persons of all sizes at OKS 0.5, 0.55, … 0.95 and recall 0, 0.01, … 1, of the same range.
    """
    truth = load_coco(annotations)
    if category_id is None:
        category_id = keypoint_category(truth, len(sigmas))
    for annotation in truth.dataset["annotations"]:
        _complete(annotation, len(sigmas))
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation = COCOeval(truth, _results(truth, rows), "keypoints")
        evaluation.params.catIds = [category_id]
        # COCO states its sigmas in tenths, and 0.26 / 10 is not the same double as 0.026
        evaluation.params.kpt_oks_sigmas = np.round(np.asarray(sigmas, float) * 10, 9) / 10.0
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    figures = dict(zip(COCO_METRICS, (float(value) for value in evaluation.stats), strict=True))
    # (thresholds, recalls, categories, sizes, limits of persons an image)
    return figures, evaluation.eval["precision"][:, :, 0, evaluation.params.areaRngLbl.index("all"), -1]


def covering(annotations: COCO, annotation_ids: Collection[int]) -> COCO:
    """The annotations without the persons that were not asked for, as when only the first few were predicted.

    Crowds and persons without labelled joints stay: they are never missed, but excuse a detection on them.
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


def _complete(annotation: dict[str, Any], num_keypoints: int) -> None:
    """Add what pycocotools reads and a set of one's own may leave out."""
    keypoints = annotation.setdefault("keypoints", [0] * (3 * num_keypoints))
    annotation.setdefault("num_keypoints", sum(v > 0 for v in keypoints[2::3]))
    annotation.setdefault("bbox", [0, 0, 0, 0])
    annotation["iscrowd"] = annotation.get("iscrowd") or 0
    annotation.setdefault("area", AREA_OF_BOX * annotation["bbox"][2] * annotation["bbox"][3])


def _results(truth: COCO, rows: Sequence[dict[str, Any]]) -> COCO:
    """Result rows as pycocotools wants them, on copies; `loadRes` itself fails on an empty list."""
    if rows:
        return truth.loadRes([dict(row) for row in rows])
    nothing = COCO()
    nothing.dataset = {"images": truth.dataset["images"], "annotations": []}
    nothing.createIndex()
    return nothing
