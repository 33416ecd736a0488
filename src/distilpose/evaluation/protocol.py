"""The evaluation protocol: crops to predictions, predictions to result rows, rows to metrics.

Validation during training and the evaluate command use the same functions, so they give the same metrics.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from pycocotools.coco import COCO

from distilpose.data.codec import keypoints_to_image
from distilpose.errors import DistilPoseError
from distilpose.evaluation.coco_ap import coco_evaluation, is_counted, load_coco, subset_of
from distilpose.evaluation.flip_test import FlipTest, predict_crops_each
from distilpose.evaluation.oks import PADDING
from distilpose.evaluation.orientation import OrientedPCK, pck_by_orientation
from distilpose.evaluation.pck import PCK, pck_of_predictions, torso_diagonals
from distilpose.evaluation.rescoring import best_persons
from distilpose.evaluation.results import to_rows
from distilpose.outputs import PoseBatch, Predictions
from distilpose.skeleton import Skeleton

if TYPE_CHECKING:
    from distilpose.data.coco import CocoKeypoints
    from distilpose.models.model import PoseModel


def predict_batch(model: PoseModel, batch: PoseBatch, flip_tests: Sequence[FlipTest]) -> list[Predictions]:
    """Predictions of a batch in image pixels, on the CPU, one for each kind of flip test (at most two forward passes)."""
    return [
        Predictions(
            keypoints_to_image(keypoints, batch.warp, model.input_size).cpu(),
            scores.cpu(),
            batch.image_id.cpu(),
            batch.annotation_id.cpu(),
            batch.bbox.cpu(),
            batch.bbox_score.cpu(),
        )
        for keypoints, scores in predict_crops_each(model, batch.image, flip_tests)
    ]


@torch.no_grad()
def predict_batches(
    model: PoseModel, batches: Iterable[PoseBatch], flip_tests: Sequence[FlipTest] = (True,)
) -> list[Predictions]:
    """Predictions of all batches on the model's device, in eval mode: one `Predictions` for each kind of flip test."""
    device = next(model.parameters()).device
    model.eval()
    parts = [predict_batch(model, PoseBatch(*(field.to(device) for field in batch)), flip_tests) for batch in batches]
    return [concatenate(kind) for kind in zip(*parts, strict=True)]


def concatenate(parts: Iterable[Predictions]) -> Predictions:
    """Join the predictions of several batches or processes."""
    return Predictions(*map(torch.cat, zip(*parts, strict=True)))


def result_rows(
    predictions: Predictions,
    skeleton: Skeleton,
    input_size: Sequence[int],
    category_id: int = 1,
    rescored: bool = True,
    nms_threshold: float = 0.9,
    padding: float = PADDING,
) -> list[dict[str, Any]]:
    """COCO result rows of predictions: rescored, without duplicates, best first within each image.

    The order of the predictions does not matter, so any number of processes gives the same rows.

    Args:
        predictions: N persons.
        skeleton: without sigmas, duplicates are not removed.
        input_size: (H, W) of the crops, whose areas OKS-NMS uses.
        category_id: the category of all rows.
        rescored: whether box scores are multiplied by joint scores, see `rescore`.
        nms_threshold: OKS above which the lower-scoring of two persons in an image is removed.
        padding: factor on the boxes.
    """
    predictions, scores = best_persons(predictions, skeleton, input_size, rescored, nms_threshold, padding)
    return to_rows(predictions, scores, category_id)


class Evaluation(NamedTuple):
    """Result of one evaluation protocol.

    Attributes:
        metrics: COCO's ten metrics (AP, AP50, …) if the skeleton has sigmas. With ground-truth boxes also PCK, and PCK_box,
            PCK by the size of the box, for a skeleton whose PCK is by the torso.
        rows: the COCO result rows of these metrics.
        pck: PCK in detail; None with detector boxes.
        precision: (10, 101) by OKS threshold and recall, see `coco_evaluation`; None without sigmas.
        oriented: PCK by body orientation; None with detector boxes, and for a skeleton without shoulders and hips.
        persons: number of annotated persons that the metrics are over.
        of_persons: number of annotated persons of the file. More than `persons` if only some were shown to the model.
    """

    metrics: dict[str, float]
    rows: list[dict[str, Any]]
    pck: PCK | None
    precision: NDArray[np.float64] | None = None
    oriented: OrientedPCK | None = None
    persons: int = 0
    of_persons: int = 0

    @property
    def counted(self) -> str:
        """The persons that the metrics are over, in words."""
        total = "" if self.persons == self.of_persons else f" of {self.of_persons}"
        return f"{self.persons}{total} persons"


def score_dataset(
    predictions: Predictions,
    dataset: CocoKeypoints,
    rescored: bool = True,
    nms_threshold: float = 0.9,
    truth: COCO | None = None,
) -> Evaluation:
    """Metrics of predictions over all images of a data set, or over the persons shown if these are only some.

    Args:
        predictions: one for each person that was shown to the model, from all processes.
        dataset: data set with ground-truth or detector boxes.
        rescored: see `result_rows`.
        nms_threshold: see `result_rows`.
        truth: the data set's annotation file, if it is already loaded.

    Raises:
        DistilPoseError: only some of the detector's boxes were shown.
    """
    complete = load_coco(dataset.annotations_file) if truth is None else truth
    truth = truth_of(dataset, predictions.annotation_id.tolist(), complete)
    skeleton, category_id = dataset.skeleton, dataset.category_id
    rows = result_rows(predictions, skeleton, dataset.input_size, category_id, rescored, nms_threshold, dataset.padding)
    metrics: dict[str, float] = {}
    detail, precision, oriented = None, None, None
    if skeleton.sigmas is not None:
        metrics, precision = coco_evaluation(truth, rows, skeleton.sigmas, category_id)
    if has_ground_truth_boxes(dataset):
        detail = pck_of_predictions(predictions, truth, skeleton)
        oriented = pck_by_orientation(predictions, truth, skeleton)
        metrics["PCK"] = detail.value
        if torso_diagonals(skeleton) is not None:
            metrics["PCK_box"] = pck_of_predictions(predictions, truth, skeleton, by_box=True).value
    persons, of_persons = (len(persons_of(part, category_id)) for part in (truth, complete))
    return Evaluation(metrics, rows, detail, precision, oriented, persons, of_persons)


def evaluate_dataset(predictions: Predictions, dataset: CocoKeypoints, truth: COCO | None = None) -> Evaluation:
    """`score_dataset` under the standard protocol: rescored, OKS-NMS at 0.9.

    The metrics include PCK_upright and PCK_other if there are such persons (`pck_by_orientation`).
    """
    evaluation = score_dataset(predictions, dataset, truth=truth)
    parts = {} if evaluation.oriented is None else evaluation.oriented._asdict()
    by_orientation = {f"PCK_{name}": part.value for name, part in parts.items() if part.persons > 0}
    return evaluation._replace(metrics=evaluation.metrics | by_orientation)


def has_ground_truth_boxes(dataset: CocoKeypoints) -> bool:
    """Whether the persons are annotations. Detections have no labels."""
    return bool(dataset.instances.labelled.any())


def truth_of(dataset: CocoKeypoints, shown: Collection[int] | None = None, complete: COCO | None = None) -> COCO:
    """The annotations that predictions are scored against: those of the persons shown, by default of the data set.

    Persons that were not shown are left out: of a limited data set, those after its last one. Persons without a crop because
    their box is empty count as missed.

    Args:
        dataset: data set with ground-truth or detector boxes.
        shown: ids of the persons shown to the model.
        complete: the data set's annotation file, if it is already loaded.

    Raises:
        DistilPoseError: only some of the detector's boxes were shown, so that persons would count as missed.
    """
    truth = load_coco(dataset.annotations_file) if complete is None else complete
    ids = set(dataset.instances.annotation_ids.tolist())
    used = ids if shown is None else ids & set(shown)
    if not has_ground_truth_boxes(dataset):
        if dataset.limit is not None or len(used) < len(ids):
            raise DistilPoseError(
                f"Only {len(used)} of the detector's boxes were shown to the model, so persons in the others would count as "
                "missed: predict all boxes, or give ground-truth boxes."
            )
        return truth
    if dataset.limit is None and used == ids:
        return truth
    in_order = [annotation["id"] for annotation in truth.dataset["annotations"]]
    last = max(index for index, number in enumerate(in_order) if number in used)
    return subset_of(truth, set(in_order[: last + 1]) - (ids - used))


def persons_of(truth: COCO, category_id: int) -> list[dict[str, Any]]:
    """The annotations that count in COCO's metrics."""
    return [annotation for annotation in truth.dataset["annotations"] if is_counted(annotation, category_id)]
