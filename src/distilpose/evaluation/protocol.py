"""The evaluation protocol in one place: crops to predictions, predictions to result rows, rows to figures.

Validation during training and the evaluate command both come through here, so they give the same figures.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from pycocotools.coco import COCO

from distilpose.data.codec import keypoints_to_image
from distilpose.errors import DistilPoseError
from distilpose.evaluation.coco_ap import coco_evaluation, covering, keypoint_category, load_coco
from distilpose.evaluation.flip import FlipTest, predict_crops_each
from distilpose.evaluation.oks import PADDING
from distilpose.evaluation.orientation import pck_by_orientation
from distilpose.evaluation.pck import PCK, pck_of_predictions
from distilpose.evaluation.rescoring import best_persons
from distilpose.evaluation.results import to_rows
from distilpose.outputs import PoseBatch, Predictions
from distilpose.skeleton import Skeleton

if TYPE_CHECKING:
    from distilpose.data.coco import CocoKeypoints
    from distilpose.models.model import PoseModel


def choose_device(name: str) -> torch.device:
    """The device of that name; "auto" is the first GPU, else the CPU.

    Raises:
        DistilPoseError: the device is not there.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, TypeError) as error:
        reason = str(error).splitlines()[0]
        raise DistilPoseError(
            f"Device {name!r} cannot be used ({reason}): use device=cpu, or device=auto for what is there."
        ) from error
    return device


def predict_batch(model: PoseModel, batch: PoseBatch, flip_tests: Sequence[FlipTest]) -> list[Predictions]:
    """Persons of a batch in image pixels, on the CPU, once for each kind of flip test (two forward passes at most)."""
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
    """All persons of a loader by a model in eval mode, on the model's device: one `Predictions` a kind of flip test."""
    device = next(model.parameters()).device
    model.eval()
    parts = [predict_batch(model, PoseBatch(*(field.to(device) for field in batch)), flip_tests) for batch in batches]
    return [concatenate(kind) for kind in zip(*parts, strict=True)]


def concatenate(parts: Iterable[Predictions]) -> Predictions:
    """Predictions of several batches or processes as one."""
    return Predictions(*map(torch.cat, zip(*parts, strict=True)))


def check_finite(predictions: Predictions, source: Any) -> None:
    """Refuse predictions that are no numbers: they would only look like misses, or in OKS-NMS like hits.

    Args:
        predictions: N persons.
        source: what made them, for the message.
    """
    broken = int((~predictions.keypoints.isfinite().flatten(1).all(1) | ~predictions.scores.isfinite().all(1)).sum())
    if broken:
        raise DistilPoseError(
            f"{source} gives keypoints or scores that are not finite for {broken} of {len(predictions.scores)} persons: "
            "its training diverged, use an earlier checkpoint."
        )


def result_rows(
    predictions: Predictions,
    skeleton: Skeleton,
    input_size: Sequence[int],
    category_id: int = 1,
    rescored: bool = True,
    nms_threshold: float = 0.9,
    padding: float = PADDING,
) -> list[dict[str, Any]]:
    """COCO result rows of predictions: scores of persons, doubles suppressed, best first within each image.

    The order of the predictions does not matter, so any number of processes gives the same rows.

    Args:
        predictions: N persons.
        skeleton: without sigmas, no doubles are suppressed.
        input_size: (H, W) of the crops, whose areas tell what is a double.
        category_id: the category of all rows.
        rescored: whether the joints' scores count beside the box's.
        nms_threshold: OKS above which the lower-scoring of two persons in an image is dropped.
        padding: factor by which the crops exceed the boxes.
    """
    predictions, scores = best_persons(predictions, skeleton, input_size, rescored, nms_threshold, padding)
    return to_rows(predictions, scores, category_id)


class Evaluation(NamedTuple):
    """What one protocol says of a set of predictions.

    Attributes:
        metrics: COCO's ten figures (AP, AP50, …) where the skeleton has sigmas, and PCK with ground-truth boxes.
        rows: the COCO result rows they were computed from.
        pck: PCK in detail; None with a detector's boxes.
        precision: (10, 101) by OKS threshold and recall, as `coco_evaluation` gives it; None without sigmas.
    """

    metrics: dict[str, float]
    rows: list[dict[str, Any]]
    pck: PCK | None
    precision: NDArray[np.float64] | None = None


def score_predictions(
    predictions: Predictions,
    annotations: str | Path | COCO,
    skeleton: Skeleton,
    input_size: Sequence[int],
    *,
    category_id: int | None = None,
    rescored: bool = True,
    nms_threshold: float = 0.9,
    padding: float = PADDING,
    ground_truth_boxes: bool = True,
) -> Evaluation:
    """The figures of a set of predictions over all images of an annotation file.

    Args:
        predictions: N persons.
        annotations: COCO annotation file, or pycocotools' `COCO` of it.
        skeleton: of the annotations and the predictions.
        input_size: (H, W) of the crops.
        category_id: the category to score; by default the first with K keypoints.
        rescored: see `result_rows`.
        nms_threshold: see `result_rows`.
        padding: see `result_rows`.
        ground_truth_boxes: whether `annotation_id` names annotations, so that PCK can be told.
    """
    truth = load_coco(annotations)
    if category_id is None:
        category_id = keypoint_category(truth, skeleton.num_keypoints)
    rows = result_rows(predictions, skeleton, input_size, category_id, rescored, nms_threshold, padding)
    metrics: dict[str, float] = {}
    detail, precision = None, None
    if skeleton.sigmas is not None:
        metrics, precision = coco_evaluation(truth, rows, skeleton.sigmas, category_id)
    if ground_truth_boxes:
        detail = pck_of_predictions(predictions, truth, skeleton)
        metrics["PCK"] = detail.value
    return Evaluation(metrics, rows, detail, precision)


def score_dataset(
    predictions: Predictions,
    dataset: CocoKeypoints,
    rescored: bool = True,
    nms_threshold: float = 0.9,
    truth: COCO | None = None,
) -> Evaluation:
    """`score_predictions` on the persons of a data set: all of its annotation file, or its first few if limited.

    Args:
        predictions: of every person of the data set.
        dataset: ground-truth or detector's boxes.
        rescored: see `result_rows`.
        nms_threshold: see `result_rows`.
        truth: `truth_of(dataset)` where it is at hand already.
    """
    return score_predictions(
        predictions,
        truth_of(dataset) if truth is None else truth,
        dataset.skeleton,
        dataset.input_size,
        category_id=dataset.category_id,
        rescored=rescored,
        nms_threshold=nms_threshold,
        padding=dataset.padding,
        ground_truth_boxes=has_ground_truth_boxes(dataset),
    )


def evaluate_dataset(predictions: Predictions, dataset: CocoKeypoints) -> Evaluation:
    """`score_dataset` under the standard protocol: rescored, OKS-NMS at 0.9.

    Its figures also hold PCK_upright and PCK_other where there are such persons (`pck_by_orientation`).
    """
    truth = truth_of(dataset)
    evaluation = score_dataset(predictions, dataset, truth=truth)
    found = pck_by_orientation(predictions, truth, dataset.skeleton) if "PCK" in evaluation.metrics else None
    parts = {} if found is None else found._asdict()
    oriented = {f"PCK_{name}": part.value for name, part in parts.items() if part.persons > 0}
    return evaluation._replace(metrics=evaluation.metrics | oriented)


def has_ground_truth_boxes(dataset: CocoKeypoints) -> bool:
    """Whether the persons are annotations; those from a detector have no labels."""
    return bool(dataset.instances.labelled.any())


def truth_of(dataset: CocoKeypoints) -> COCO:
    """The annotations a data set is scored against: all of its file.

    A data set limited to its first few persons was not asked for those that come after its last in the file: they are
    left out. Persons left out because their box is empty count as missed, as they do without a limit.
    """
    truth = load_coco(dataset.annotations_file)
    if dataset.limit is None or not has_ground_truth_boxes(dataset):
        return truth
    in_order = [annotation["id"] for annotation in truth.dataset["annotations"]]
    asked = set(dataset.instances.annotation_ids.tolist())
    last = max(place for place, number in enumerate(in_order) if number in asked)
    return covering(truth, in_order[: last + 1])
