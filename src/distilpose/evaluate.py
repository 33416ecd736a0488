"""Evaluate a model or a results file: `python -m distilpose.evaluate checkpoint=FILE data=coco protocol=all`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from annotated_types import Ge
from hydra.utils import instantiate
from omegaconf import DictConfig
from rich.progress import track

from distilpose.cli.command import command
from distilpose.cli.validate_settings import Group
from distilpose.data.annotations import load_annotations
from distilpose.errors import DistilPoseError
from distilpose.evaluation import (
    MEAN_POSE,
    FlipTest,
    beyond_limit,
    check_finite,
    check_normalisation,
    check_same_joints,
    choose_device,
    coco_metrics,
    load_coco,
    load_results,
    markdown_table,
    mean_pose,
    of_category,
    predict_batches,
    predict_mean_pose,
    reliability,
    score_dataset,
)
from distilpose.evaluation.reliability import calibration_split, check_enough_labels
from distilpose.evaluation.table import as_printed, notes_on_persons, table_row
from distilpose.files import check_new_folder, sha256_of, write_json
from distilpose.models import load_model
from distilpose.models.checkpoint import WeightsKind, weights_digest
from distilpose.models.remote import local_file
from distilpose.runs.run_of_checkpoint import data_padding

if TYPE_CHECKING:
    from distilpose.data import CocoDataModule
    from distilpose.models.model import PoseModel

COLUMNS = (
    "model", "boxes", "flip", "rescoring", "persons", "AP", "AP50", "AP75", "APM", "APL", "AR", "PCK", "PCK up", "PCK other"
)  # fmt: skip
FROM_FILE = dict.fromkeys(("model", "boxes", "flip", "rescoring"), "as in file")


class EvaluateSettings:
    """Settings of the evaluate command.

    Attributes:
        checkpoint: model to evaluate, a .ckpt or .safetensors of this package.
        weights_kind: which weights to use if the training averaged them (callbacks=ema).
        predictions: COCO keypoint results (JSON) to score instead of a checkpoint.
        protocol: boxes of the persons. "detections" are the detector's of data.boxes, as in papers; "all" evaluates all
            combinations of boxes, flip test and rescoring.
        flip_test: average each crop with its mirror image; "released" does it like the published code.
        rescoring: multiply box scores by the mean of the joint scores above 0.2.
        nms_threshold: OKS above which two persons of an image are duplicates; only the better one is kept.
        mean_pose: add a row for the mean-pose baseline, which reads data.train_annotations.
        calibration_output: new file for a map from scores to expected OKS, which predict reads. It is fitted to the persons of
            every other image, in ground-truth boxes, and tested on the rest.
        device: auto, cpu, cuda or cuda:1.
        output: new folder of metrics.json and the result rows.
    """

    checkpoint: str | Path | None
    weights_kind: WeightsKind
    predictions: str | Path | None
    protocol: Literal["gt", "detections", "all"]
    flip_test: FlipTest
    rescoring: bool
    nms_threshold: Annotated[float, Ge(0)]
    mean_pose: bool
    calibration_output: str | Path | None
    device: str
    output: str | Path
    data: Group


@command("evaluate", EvaluateSettings)
def main(cfg: DictConfig) -> dict[str, Any]:
    """Evaluate, print one table, and write metrics.json and the COCO result rows."""
    output = check_new_folder(cfg.output)
    if (cfg.checkpoint is None) == (cfg.predictions is None):
        raise DistilPoseError(
            "Give either checkpoint=FILE (.ckpt or .safetensors) or predictions=RESULTS.json (COCO keypoint results)."
        )
    if cfg.calibration_output is not None and cfg.checkpoint is None:
        raise DistilPoseError(f"calibration_output={cfg.calibration_output} needs a model: give checkpoint=FILE.")
    report = evaluate_file(cfg) if cfg.checkpoint is None else evaluate_model(cfg, output)
    write_json(report, output / "metrics.json")
    table = markdown_table([as_printed(row) for row in report["rows"]], COLUMNS)
    print(f"\n{report['source']} on {report['annotations']}", table, *report["notes"], f"Written to {output}", sep="\n")
    return report


def evaluate_file(cfg: DictConfig) -> dict[str, Any]:
    """Metrics of a COCO results file. Its rows are scored without rescoring or removal of duplicates."""
    if cfg.data.get("limit_val") is not None:
        raise DistilPoseError(
            f"data.limit_val={cfg.data.limit_val} cannot apply to predictions={cfg.predictions}, whose rows do not say which "
            "person they are of: give data.limit_val=null."
        )
    datamodule: CocoDataModule = instantiate(cfg.data)
    datamodule.prepare_data()
    skeleton = datamodule.skeleton
    if skeleton.sigmas is None:
        raise DistilPoseError(
            f"The skeleton of {datamodule.val_annotations} has no OKS sigmas, so a results file cannot be scored: "
            "give them by data.skeleton.sigmas=[...], one per joint."
        )
    truth, category = load_coco(datamodule.val_annotations), datamodule.category_id
    read = load_results(cfg.predictions, skeleton.num_keypoints, truth.imgs, truth.cats)
    rows = of_category(read, category, cfg.predictions)
    metrics = coco_metrics(truth, rows, skeleton.sigmas, category)
    table = [{**FROM_FILE, "persons": len(rows), **metrics}]
    notes = [f"All {len(truth.imgs)} images of the annotation file count."]
    if len(rows) < len(read):
        notes.append(f"{len(rows)} of {len(read)} rows have category_id {category}; the others are left out.")
    notes += filter(None, [beyond_limit(rows, category)])
    if cfg.mean_pose:
        table.append(_mean_pose_row(datamodule, cfg.nms_threshold))
    return {
        "source": str(cfg.predictions),
        "annotations": str(datamodule.val_annotations),
        "rows": table,
        "notes": notes,
    }


def evaluate_model(cfg: DictConfig, output: Path) -> dict[str, Any]:
    """Metrics of a model under each protocol. All protocols with the same boxes share the forward passes."""
    boxes, notes = _boxes(cfg)
    flips: Sequence[FlipTest] = [cfg.flip_test]
    rescorings = [cfg.rescoring]
    if cfg.protocol == "all":
        flips, rescorings = list(dict.fromkeys([False, True, cfg.flip_test])), [False, True]
    model = load_model(cfg.checkpoint, cfg.weights_kind).to(choose_device(cfg.device))
    check_normalisation(model)
    own = data_padding(local_file(cfg.checkpoint), cfg.data)
    datamodule: CocoDataModule = instantiate(cfg.data, input_size=list(model.input_size), **own)
    datamodule.prepare_data()
    check_same_joints(cfg.checkpoint, model.skeleton, datamodule.val_annotations, datamodule.skeleton)
    if cfg.calibration_output is not None:
        _check_calibration(cfg, boxes, model, datamodule)
    # missing data and a folder that cannot be written are reported before the work starts
    for kind in boxes:
        datamodule.val_dataset(detections=kind == "detections")
    if cfg.mean_pose:
        datamodule.train_dataset()
    output.mkdir(parents=True, exist_ok=True)
    if cfg.calibration_output is not None:
        Path(cfg.calibration_output).parent.mkdir(parents=True, exist_ok=True)
    table: list[dict[str, Any]] = []
    for kind in boxes:
        dataset = datamodule.val_dataset(detections=kind == "detections")
        loader = datamodule.evaluation_dataloader(detections=kind == "detections")
        truth = load_coco(dataset.annotations_file)
        batches = track(loader, f"{len(dataset)} persons, {kind} boxes")
        for flip, predictions in zip(flips, predict_batches(model, batches, flips), strict=True):
            check_finite(predictions, cfg.checkpoint)
            for rescored in rescorings:
                row = {"boxes": kind, "flip": str(flip).lower(), "rescoring": "on" if rescored else "off"}
                result = score_dataset(predictions, dataset, rescored, cfg.nms_threshold, truth)
                table.append(table_row(model.name, row, result, dataset))
                notes += filter(None, [beyond_limit(result.rows, dataset.category_id)])
                name = f"results_{kind}_flip-{row['flip']}_rescoring-{row['rescoring']}.json"
                write_json(result.rows, output / name)
            if cfg.calibration_output is not None and kind == "gt" and flip == cfg.flip_test:
                annotations = load_annotations(dataset.annotations_file, dataset.category_id, dataset.skeleton)
                calibrated = reliability(predictions, annotations, dataset.skeleton)
                about = {"weights": weights_digest(model), "flip_test": cfg.flip_test, "padding": dataset.padding}
                notes.append(calibrated.save(cfg.calibration_output, checkpoint=str(cfg.checkpoint), **about))
    if cfg.mean_pose:
        table.append(_mean_pose_row(datamodule, cfg.nms_threshold))
    if "gt" in boxes:
        notes += notes_on_persons(table[0])
    if not model.scores_trained:
        notes.append("No loss trained this model's joint scores, so they count as 1.")
    return {
        "source": f"{model.name} ({cfg.checkpoint})",
        "checkpoint": {"sha256": sha256_of(local_file(cfg.checkpoint)), "weights_kind": cfg.weights_kind},
        "annotations": str(datamodule.val_annotations),
        "input_size": list(model.input_size),
        "nms_threshold": cfg.nms_threshold,
        "limit": datamodule.limit_val,
        "rows": table,
        "notes": list(dict.fromkeys(notes)),
    }


def _mean_pose_row(datamodule: CocoDataModule, nms_threshold: float) -> dict[str, Any]:
    """Metrics of the mean-pose baseline: the mean training pose in every ground-truth box."""
    dataset = datamodule.val_dataset()
    predictions = predict_mean_pose(mean_pose(datamodule.train_dataset()), dataset)
    result = score_dataset(predictions, dataset, nms_threshold=nms_threshold)
    return table_row(MEAN_POSE, {"boxes": "gt"}, result, dataset)


def _boxes(cfg: DictConfig) -> tuple[list[str], list[str]]:
    """Kinds of boxes to evaluate with, and a note if detector boxes are missing."""
    if cfg.protocol == "gt":
        return ["gt"], []
    if cfg.data.get("limit_val") is not None:
        raise DistilPoseError(
            f"data.limit_val={cfg.data.limit_val} would leave out some detections of an image, and their persons would "
            "count as missed: give protocol=gt, or data.limit_val=null."
        )
    file = cfg.data.get("boxes")  # relative to data.root
    if cfg.protocol == "detections":
        return ["detections"], []
    if file is not None and (Path(cfg.data.get("root") or "") / file).is_file():
        return ["gt", "detections"], []
    reason = "data.boxes is null" if file is None else f"'{file}' does not exist in '{cfg.data.root}'"
    return ["gt"], [f"Ground-truth boxes only, because {reason}: give data.boxes=FILE for detector boxes."]


def _check_calibration(cfg: DictConfig, boxes: Sequence[str], model: PoseModel, datamodule: CocoDataModule) -> None:
    """Raise before the work if the calibration cannot be computed or written."""
    if Path(cfg.calibration_output).exists():
        raise DistilPoseError(
            f"calibration_output={cfg.calibration_output} exists and is not overwritten: give a new name."
        )
    if "gt" not in boxes or not model.scores_trained:
        need = "ground-truth boxes: give protocol=gt" if model.scores_trained else "a model with trained scores"
        raise DistilPoseError(f"calibration_output={cfg.calibration_output} needs {need}.")
    persons = datamodule.val_dataset().instances
    check_enough_labels(persons.labelled[calibration_split(persons.image_ids)])


if __name__ == "__main__":
    main()
