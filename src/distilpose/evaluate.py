"""Evaluate a model or a results file: `python -m distilpose.evaluate checkpoint=FILE data=coco protocol=all`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.utils import instantiate
from omegaconf import DictConfig
from rich.progress import track

from distilpose.cli.command import command
from distilpose.data.annotations import load_annotations
from distilpose.errors import DistilPoseError, check_flag, check_number
from distilpose.evaluation import (
    MEAN_POSE,
    PCK,
    Evaluation,
    FlipTest,
    check_finite,
    check_flip_test,
    choose_device,
    coco_metrics,
    load_coco,
    load_results,
    markdown_table,
    mean_pose,
    pck_by_orientation,
    predict_batches,
    predict_mean_pose,
    reliability,
    score_dataset,
    truth_of,
)
from distilpose.evaluation.reliability import check_labelled, fitted_half
from distilpose.files import write_json
from distilpose.models import load_model

if TYPE_CHECKING:
    from pycocotools.coco import COCO

    from distilpose.data import CocoDataModule, CocoKeypoints
    from distilpose.models.model import PoseModel
    from distilpose.outputs import Predictions

COLUMNS = (
    "model", "boxes", "flip", "rescoring", "persons", "AP", "AP50", "AP75", "APM", "APL", "AR", "PCK", "PCK up", "PCK other"
)  # fmt: skip


@command("evaluate")
def main(cfg: DictConfig) -> dict[str, Any]:
    """Score, print one table, and write metrics.json and the COCO result rows into the output folder."""
    output = Path(cfg.output)
    check_flag("rescoring", cfg.rescoring)
    check_flag("mean_pose", cfg.mean_pose)
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise DistilPoseError(f"output={output} is not an empty folder and nothing is overwritten: give a new one.")
    if (cfg.checkpoint is None) == (cfg.predictions is None):
        raise DistilPoseError(
            "Give one of checkpoint=FILE (.ckpt or .safetensors) and predictions=RESULTS.json (COCO keypoint results)."
        )
    if cfg.calibration is not None and cfg.checkpoint is None:
        raise DistilPoseError(
            f"calibration={cfg.calibration} needs a checkpoint: a results file is scored as it stands."
        )
    report = evaluate_file(cfg) if cfg.checkpoint is None else evaluate_model(cfg, output)
    write_json(report, output / "metrics.json")
    print(f"\n{report['source']} on {report['annotations']}")
    print(markdown_table(report["rows"], COLUMNS))
    for note in report["notes"]:
        print(note)
    print(f"Written to {output}")
    return report


def evaluate_file(cfg: DictConfig) -> dict[str, Any]:
    """The figures of an existing COCO results file; its rows are scored as they stand."""
    datamodule: CocoDataModule = instantiate(cfg.data)
    datamodule.prepare_data()
    skeleton = datamodule.skeleton
    if skeleton.sigmas is None:
        raise DistilPoseError(
            f"The skeleton of {datamodule.val_annotations} has no OKS sigmas, so a results file cannot be scored: "
            "give them with data.skeleton.sigmas=[...], one a joint."
        )
    truth = load_coco(datamodule.val_annotations)
    rows = load_results(cfg.predictions, skeleton.num_keypoints, truth.imgs, truth.cats)
    figures = coco_metrics(truth, rows, skeleton.sigmas, datamodule.category_id)
    about = {
        "model": "as in file",
        "boxes": "as in file",
        "flip": "as in file",
        "rescoring": "as in file",
        "persons": len(rows),
    }
    table = [{**about, **figures}]
    if cfg.mean_pose:
        table.append(_mean_pose_row(datamodule, cfg.nms_threshold))
    return {
        "source": str(cfg.predictions),
        "annotations": str(datamodule.val_annotations),
        "rows": table,
        "notes": [f"All {len(truth.imgs)} images of the annotation file count."],
    }


def evaluate_model(cfg: DictConfig, output: Path) -> dict[str, Any]:
    """The figures of a model under the protocols asked for, each pair of forward passes made once."""
    boxes, notes = _boxes(cfg)
    check_number("nms_threshold", cfg.nms_threshold, least=0)
    flips: Sequence[FlipTest] = [check_flip_test(cfg.flip_test)]
    rescorings = [cfg.rescoring]
    if cfg.protocol == "all":
        flips = [False, True] if isinstance(cfg.flip_test, bool) else [False, True, cfg.flip_test]
        rescorings = [False, True]
    model = load_model(cfg.checkpoint, cfg.weights_kind).to(choose_device(cfg.device))
    datamodule: CocoDataModule = instantiate(cfg.data, input_size=list(model.input_size))
    datamodule.prepare_data()
    _check_skeleton(cfg, model, datamodule)
    if cfg.calibration is not None:
        _check_calibration(cfg, boxes, model, datamodule)
    if cfg.mean_pose:
        datamodule.train_dataset()  # and that its annotations are there
    output.mkdir(parents=True, exist_ok=True)  # better now than after the work that one cannot write there
    table: list[dict[str, Any]] = []
    for kind in boxes:
        dataset = datamodule.val_dataset(detections=kind == "detections")
        loader = datamodule.evaluation_dataloader(detections=kind == "detections")
        truth = truth_of(dataset)
        batches = track(loader, f"{len(dataset)} persons, {kind} boxes")
        for flip, found in zip(flips, predict_batches(model, batches, flips), strict=True):
            check_finite(found, cfg.checkpoint)
            for rescored in rescorings:
                row = {"boxes": kind, "flip": str(flip).lower(), "rescoring": "on" if rescored else "off"}
                result = score_dataset(found, dataset, rescored, cfg.nms_threshold, truth)
                about = {"model": model.name, **row, "persons": len(found.scores)}
                table.append({**about, **result.metrics, **_detail(result, found, dataset, truth)})
                name = f"results_{kind}_flip-{row['flip']}_rescoring-{row['rescoring']}.json"
                write_json(result.rows, output / name)
            if cfg.calibration is not None and kind == "gt" and flip == check_flip_test(cfg.flip_test):
                calibrated = reliability(found, load_annotations(dataset.annotations_file), dataset.skeleton)
                notes.append(calibrated.save(cfg.calibration, checkpoint=str(cfg.checkpoint), flip_test=cfg.flip_test))
    if cfg.mean_pose:
        table.append(_mean_pose_row(datamodule, cfg.nms_threshold))
    if "gt" in boxes:
        first = table[0]["pck"]
        notes.append(f"PCK is at {first['reference']}: {first['persons']} persons, {first['left_out']} left out.")
        if "upright" in first:
            up, other = first["upright"]["persons"], first["not_upright"]["persons"]
            notes.append(f"PCK up is of the {up} whose torso points up within 45 degrees, PCK other of {other} others.")
    if not model.scores_trained:
        notes.append("Nothing trained this model's joint scores, so they count as 1.")
    return {
        "source": f"{model.name} ({cfg.checkpoint})",
        "annotations": str(datamodule.val_annotations),
        "input_size": list(model.input_size),
        "nms_threshold": cfg.nms_threshold,
        "limit": datamodule.limit_val,
        "rows": table,
        "notes": notes,
    }


def _mean_pose_row(datamodule: CocoDataModule, nms_threshold: float) -> dict[str, Any]:
    """The figures of the mean training pose, put into every ground-truth box."""
    dataset = datamodule.val_dataset()
    found = predict_mean_pose(mean_pose(datamodule.train_dataset()), dataset)
    truth = truth_of(dataset)
    result = score_dataset(found, dataset, nms_threshold=nms_threshold, truth=truth)
    about = {"model": MEAN_POSE, "boxes": "gt", "persons": len(found.scores)}
    return {**about, **result.metrics, **_detail(result, found, dataset, truth)}


def _boxes(cfg: DictConfig) -> tuple[list[str], list[str]]:
    """Which boxes to evaluate with, and what to say of those that are not there."""
    kinds = {"gt": ["gt"], "detections": ["detections"], "all": ["gt", "detections"]}
    if cfg.protocol not in kinds:
        raise DistilPoseError(f"protocol={cfg.protocol} is not known: expected gt, detections or all.")
    if cfg.protocol != "gt" and cfg.data.get("limit_val") is not None:
        raise DistilPoseError(
            f"data.limit_val={cfg.data.limit_val} would leave out some of an image's detections, and AP would count "
            "their persons as missed: use protocol=gt, or data.limit_val=null."
        )
    file = cfg.data.get("boxes")
    # joined with the data's folder unless it is absolute, as the data module does
    found = file is not None and (Path(cfg.data.get("root") or "") / file).is_file()
    if cfg.protocol == "gt" or found:
        return kinds[cfg.protocol], []
    told = "none are given" if file is None else f"'{file}' does not exist under '{cfg.data.root}'"
    if cfg.protocol == "detections":
        raise DistilPoseError(
            f"protocol=detections needs a detector's boxes, but {told}: give a file by data.boxes=FILE."
        )
    return ["gt"], [f"Ground-truth boxes only: of detector boxes {told} (data.boxes=FILE)."]


def _check_calibration(cfg: DictConfig, boxes: Sequence[str], model: PoseModel, datamodule: CocoDataModule) -> None:
    """A calibration that cannot be written is told before the work."""
    if Path(cfg.calibration).exists():
        raise DistilPoseError(f"calibration={cfg.calibration} exists and nothing is overwritten: give a new name.")
    if "gt" not in boxes or not model.scores_trained:
        why = "ground-truth boxes: use protocol=gt" if model.scores_trained else "a model whose scores were trained"
        raise DistilPoseError(f"calibration={cfg.calibration} needs {why}.")
    persons = datamodule.val_dataset().instances
    check_labelled(persons.labelled[fitted_half(persons.image_ids)])


def _check_skeleton(cfg: DictConfig, model: PoseModel, datamodule: CocoDataModule) -> None:
    """The model's joints must be the data's, in the same order."""
    ours, theirs = model.skeleton.names, datamodule.skeleton.names
    if ours != theirs:
        raise DistilPoseError(
            f"{cfg.checkpoint} predicts {len(ours)} joints ({', '.join(ours[:3])}, …), but "
            f"{datamodule.val_annotations} has {len(theirs)} ({', '.join(theirs[:3])}, …): "
            "evaluate on data with the model's skeleton."
        )


def _detail(result: Evaluation, found: Predictions, dataset: CocoKeypoints, truth: COCO) -> dict[str, Any]:
    """PCK joint by joint, what it refers to, and of persons upright and not, where there is one."""
    if result.pck is None:
        return {}
    oriented = pck_by_orientation(found, truth, dataset.skeleton)
    if oriented is None:
        return {"pck": _by_name(result.pck, dataset)}
    upright, other = (_by_name(part, dataset) for part in oriented)
    return {
        "PCK up": oriented.upright.value,
        "PCK other": oriented.other.value,
        "pck": {**_by_name(result.pck, dataset), "upright": upright, "not_upright": other},
    }


def _by_name(found: PCK, dataset: CocoKeypoints) -> dict[str, Any]:
    """PCK in plain containers, its joints by name."""
    return {**found._asdict(), "per_joint": dict(zip(dataset.skeleton.names, found.per_joint.tolist(), strict=True))}


if __name__ == "__main__":
    main()
