"""The evaluate command's table: a row for each protocol, and notes on the persons that their metrics are over."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pycocotools.coco import COCO

from distilpose.evaluation.checks import check_finite
from distilpose.evaluation.coco_ap import beyond_limit, load_coco
from distilpose.evaluation.flip_test import FlipTest
from distilpose.evaluation.mean_pose import MEAN_POSE, predict_mean_pose
from distilpose.evaluation.mean_pose import mean_pose as mean_pose_of
from distilpose.evaluation.pck import PCK
from distilpose.evaluation.protocol import Evaluation, score_dataset
from distilpose.files import write_json
from distilpose.outputs import Predictions

if TYPE_CHECKING:
    from distilpose.data import CocoDataModule
    from distilpose.data.coco import CocoKeypoints


def score_protocols(
    name: str,
    datamodule: CocoDataModule,
    boxes: Sequence[str],
    predict: Callable[[CocoKeypoints, str, Sequence[FlipTest]], list[Predictions]],
    output: Path,
    truth_for: Callable[[COCO], COCO] = lambda truth: truth,
    *,
    flip_test: FlipTest,
    rescoring: bool,
    every: bool,
    nms_threshold: float,
    mean_pose: bool,
) -> tuple[list[dict[str, Any]], list[str], dict[tuple[str, FlipTest], Predictions]]:
    """Rows of a table for every combination of boxes, flip test and rescoring; result rows are written as JSON.

    Args:
        name: of the model or teacher.
        datamodule: the data.
        boxes: "gt", "detections" or both.
        predict: returns the predictions for a data set and its kind of boxes, one for each kind of flip test.
        output: folder of the result rows.
        truth_for: returns the annotations to score against.
        flip_test: kind of flip test.
        rescoring: whether to rescore.
        every: evaluate every combination of flip test and rescoring instead.
        nms_threshold: see `result_rows`.
        mean_pose: whether to add the mean-pose baseline.

    Returns:
        The rows, notes on them, and the predictions by kind of boxes and flip test.
    """
    flips = list(dict.fromkeys([False, True, flip_test])) if every else [flip_test]
    table: list[dict[str, Any]] = []
    notes: list[str] = []
    kept: dict[tuple[str, FlipTest], Predictions] = {}
    for kind in boxes:
        dataset = datamodule.val_dataset(detections=kind == "detections")
        truth = truth_for(load_coco(dataset.annotations_file))
        for flip, predictions in zip(flips, predict(dataset, kind, flips), strict=True):
            check_finite(predictions, name)
            kept[kind, flip] = predictions
            for rescored in [False, True] if every else [rescoring]:
                row = {"boxes": kind, "flip": str(flip).lower(), "rescoring": "on" if rescored else "off"}
                result = score_dataset(predictions, dataset, rescored, nms_threshold, truth)
                table.append(table_row(name, row, result, dataset))
                notes += filter(None, [beyond_limit(result.rows, dataset.category_id)])
                file = f"results_{kind}_flip-{row['flip']}_rescoring-{row['rescoring']}.json"
                write_json(result.rows, output / file)
    if mean_pose:
        table.append(mean_pose_row(datamodule, nms_threshold, truth_for))
    if "gt" in boxes:
        notes += notes_on_persons(table[0])
    return table, notes, kept


def mean_pose_row(
    datamodule: CocoDataModule, nms_threshold: float, truth_for: Callable[[COCO], COCO] = lambda truth: truth
) -> dict[str, Any]:
    """Metrics of the mean-pose baseline: the mean training pose in every ground-truth box; see `score_protocols`."""
    dataset = datamodule.val_dataset()
    predictions = predict_mean_pose(mean_pose_of(datamodule.train_dataset()), dataset)
    truth = truth_for(load_coco(dataset.annotations_file))
    result = score_dataset(predictions, dataset, nms_threshold=nms_threshold, truth=truth)
    return table_row(MEAN_POSE, {"boxes": "gt"}, result, dataset)


def table_row(model: str, protocol: Mapping[str, str], result: Evaluation, dataset: CocoKeypoints) -> dict[str, Any]:
    """Metrics of one model and protocol. With ground-truth boxes: also PCK of each joint, and PCK by orientation."""
    row: dict[str, Any] = {"model": model, **protocol, "persons": len(dataset)}
    if result.persons < result.of_persons:
        row["of_persons"] = result.of_persons
    row |= result.metrics
    if result.pck is None:
        return row
    pck = _by_name(result.pck, dataset)
    if result.oriented is not None:
        row |= {"PCK up": result.oriented.upright.value, "PCK other": result.oriented.other.value}
        pck["upright"], pck["not_upright"] = (_by_name(part, dataset) for part in result.oriented)
    return {**row, "pck": pck}


def as_printed(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row of the printed table, which says if the metrics are over a part of the persons only."""
    total = row.get("of_persons")
    return {**row} if total is None else {**row, "persons": f"{row['persons']} of {total}"}


def notes_on_persons(row: Mapping[str, Any]) -> list[str]:
    """Sentences on the persons that the metrics of a row are over, from a row with ground-truth boxes."""
    pck = row["pck"]
    notes = [f"PCK is at {pck['reference']}: {pck['persons']} persons, {pck['left_out']} left out."]
    if "PCK_box" in row and not pck["persons"]:
        notes[0] += f" At 0.1 of the box's longer side it is {100 * row['PCK_box']:.1f}."
    if "of_persons" in row:
        notes.append(f"All figures are on {row['persons']} of {row['of_persons']} persons (data.limit_val).")
    if "upright" in pck:
        up, other = pck["upright"]["persons"], pck["not_upright"]["persons"]
        notes.append(f"PCK up: {up} persons whose torso points up within 45 degrees. PCK other: {other} others.")
    return notes


def _by_name(pck: PCK, dataset: CocoKeypoints) -> dict[str, Any]:
    """PCK as a dictionary, with the joints by name."""
    return {**pck._asdict(), "per_joint": dict(zip(dataset.skeleton.names, pck.per_joint.tolist(), strict=True))}
