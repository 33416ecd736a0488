"""Evaluate a model, a teacher or a results file: `python -m distilpose.evaluate checkpoint=FILE data=coco protocol=all`."""

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
    FlipTest,
    beyond_limit,
    check_same_joints,
    choose_device,
    coco_metrics,
    load_coco,
    load_results,
    markdown_table,
    of_category,
    predict_batches,
    reliability,
)
from distilpose.evaluation.known_joints import KnownJoints
from distilpose.evaluation.reliability import check_can_calibrate
from distilpose.evaluation.table import as_printed, mean_pose_row, score_protocols
from distilpose.files import check_new_folder, sha256_of, write_json
from distilpose.models import load_model
from distilpose.models.checkpoint import WeightsKind, weights_digest
from distilpose.models.remote import local_file
from distilpose.runs.run_of_checkpoint import data_padding
from distilpose.teachers.scoring import predict_source
from distilpose.teachers.sources import make_source
from distilpose.teachers.views import in_views

if TYPE_CHECKING:
    from distilpose.data import CocoDataModule
    from distilpose.data.coco import CocoKeypoints
    from distilpose.outputs import Predictions

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
        teacher: a teacher of any kind to evaluate instead, in its own crops.
        protocol: boxes of the persons. "detections" are the detector's of data.boxes, as in papers; "all" evaluates all
            combinations of boxes, flip test and rescoring.
        flip_test: average each crop with its mirror image; "released" does it like the published code.
        quarter_turns: a teacher looks at each person in four turns, and counts those most in which it is sure.
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
    teacher: Group | None
    protocol: Literal["gt", "detections", "all"]
    flip_test: FlipTest
    quarter_turns: bool
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
    evaluations = {"checkpoint": evaluate_model, "predictions": evaluate_file, "teacher": evaluate_teacher}
    given = [name for name in evaluations if cfg.get(name) is not None]
    if len(given) != 1:
        raise DistilPoseError(
            "Give one of checkpoint=FILE (.ckpt or .safetensors), predictions=RESULTS.json (COCO keypoint results) and "
            f"teacher=KIND{f', not {given[0]} and {given[1]}' if given else ''}."
        )
    for name, value, needs in (("quarter_turns", "KIND", "teacher"), ("calibration_output", "FILE", "checkpoint")):
        if cfg[name] and cfg.get(needs) is None:
            raise DistilPoseError(f"{name}={cfg[name]} is for a {needs}: give {needs}={value}.")
    report = evaluations[given[0]](cfg)
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
        table.append(mean_pose_row(datamodule, cfg.nms_threshold))
    annotations = str(datamodule.val_annotations)
    return {"source": str(cfg.predictions), "annotations": annotations, "rows": table, "notes": notes}


def evaluate_model(cfg: DictConfig) -> dict[str, Any]:
    """Metrics of a model under each protocol. All protocols with the same boxes share the forward passes."""
    boxes, notes = _boxes(cfg)
    model = load_model(cfg.checkpoint, cfg.weights_kind).to(choose_device(cfg.device))
    own = data_padding(local_file(cfg.checkpoint), cfg.data)
    datamodule: CocoDataModule = instantiate(cfg.data, input_size=list(model.input_size), **own)
    datamodule.prepare_data()
    known = KnownJoints(model.skeleton, datamodule.skeleton, cfg.checkpoint)
    if cfg.calibration_output is not None:
        check_same_joints(cfg.checkpoint, model.skeleton, datamodule.val_annotations, datamodule.skeleton)
        persons = datamodule.val_dataset().instances
        check_can_calibrate(cfg.calibration_output, "gt" in boxes, model.scores_trained, persons)
    output = _prepare(cfg, datamodule, boxes)

    def predict(dataset: CocoKeypoints, kind: str, flips: Sequence[FlipTest]) -> list[Predictions]:
        loader = datamodule.evaluation_dataloader(detections=kind == "detections")
        found = predict_batches(model, track(loader, f"{len(dataset)} persons, {kind} boxes"), flips)
        return [known.of(predictions) for predictions in found]

    table, more, predictions = score_protocols(
        model.name, datamodule, boxes, predict, output, known.truth, **_protocol(cfg)
    )
    notes += more + known.notes
    if cfg.calibration_output is not None:
        dataset = datamodule.val_dataset()
        annotations = load_annotations(dataset.annotations_file, dataset.category_id, dataset.skeleton)
        calibrated = reliability(predictions["gt", cfg.flip_test], annotations, dataset.skeleton)
        about = {"weights": weights_digest(model), "flip_test": cfg.flip_test, "padding": dataset.padding}
        notes.append(calibrated.save(cfg.calibration_output, checkpoint=str(cfg.checkpoint), **about))
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


def evaluate_teacher(cfg: DictConfig) -> dict[str, Any]:
    """Metrics of a teacher of any kind in its own crops, on the joints that it knows."""
    boxes, notes = _boxes(cfg)
    if cfg.flip_test == "released":
        raise DistilPoseError("flip_test=released is for models of this package: give flip_test=true or false.")
    datamodule: CocoDataModule = instantiate(cfg.data)
    datamodule.prepare_data()
    source = make_source(cfg.teacher, datamodule.padding, choose_device(cfg.device))
    known = KnownJoints(source.skeleton, datamodule.skeleton, source.name)
    output = _prepare(cfg, datamodule, boxes)

    def predict(dataset: CocoKeypoints, kind: str, flips: Sequence[FlipTest]) -> list[Predictions]:
        title, mirrors = f"{len(dataset)} persons, {kind} boxes", list(map(bool, flips))
        return predict_source(source, dataset, mirrors, title, cfg.quarter_turns)

    table, more, _ = score_protocols(source.name, datamodule, boxes, predict, output, known.truth, **_protocol(cfg))
    is_turned = in_views(source, cfg.quarter_turns, False, datamodule.skeleton) is not source
    notes += more + known.notes + ["Each person is seen in four turns."] * is_turned
    return {
        "source": source.name,
        "teacher": source.about,
        "annotations": str(datamodule.val_annotations),
        "nms_threshold": cfg.nms_threshold,
        "limit": datamodule.limit_val,
        "rows": table,
        "notes": list(dict.fromkeys(notes)),
    }


def _prepare(cfg: DictConfig, datamodule: CocoDataModule, boxes: Sequence[str]) -> Path:
    """The output folder; missing data and a folder that cannot be written are reported before the work starts."""
    for kind in boxes:
        datamodule.val_dataset(detections=kind == "detections")
    if cfg.mean_pose:
        datamodule.train_dataset()
    for file in filter(None, [Path(cfg.output) / "metrics.json", cfg.calibration_output]):
        Path(file).parent.mkdir(parents=True, exist_ok=True)
    return Path(cfg.output)


def _protocol(cfg: DictConfig) -> dict[str, Any]:
    """The settings of `score_protocols`."""
    names = ("flip_test", "rescoring", "nms_threshold", "mean_pose")
    return {"every": cfg.protocol == "all", **{name: cfg[name] for name in names}}


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


if __name__ == "__main__":
    main()
