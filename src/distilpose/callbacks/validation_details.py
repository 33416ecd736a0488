"""Details of a validation: accuracy of each joint, curves, confidences and single persons."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from annotated_types import Ge
from lightning import Callback, Trainer
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from distilpose.data.annotations import load_annotations
from distilpose.evaluation import People, calibration, keypoint_similarity, people_of, rescore
from distilpose.loggers.tables import log_curves, log_figures, log_histogram, log_table
from distilpose.modules.pose_module import PoseModule
from distilpose.outputs import PoseBatch, Predictions
from distilpose.visualization.drawing import crop_image, draw_skeleton
from distilpose.visualization.samples import figure_to_picture, log_picture, sample_persons

RECALLS = np.linspace(0, 1, 101)
Curves = dict[str, tuple[NDArray, NDArray]]


class ValidationDetails(Callback):
    """Log details of the predictions of a validation, in the first process, for students and teachers.

    Loggers receive:

    - val_joints/PCK/<joint>: PCK of each joint;
    - curves: a picture of precision by recall (at OKS 0.5 and 0.75, and the mean over 0.5 to 0.95) and of joint OKS by
      confidence; also curves/precision_recall and curves/calibration as W&B's own plots;
    - val_distribution/confidence and val_distribution/joint_oks: histograms over all labelled joints;
    - tables/persons: a few persons with their picture, OKS, score, and the error of each joint in pixels of the crop.

    Precision needs OKS sigmas. Confidence is left out if no loss trains it.

    Args:
        folder: folder of curves.png.
        persons: rows of the table, the same persons each time.
    """

    def __init__(self, folder: str | Path, persons: Annotated[int, Ge(1)] = 32):
        self.picture = Path(folder) / "curves.png"
        self.persons = persons
        self._people: People | None = None

    def on_validation_end(self, trainer: Trainer, pl_module: PoseModule) -> None:  # type: ignore[override]
        """Evaluate, draw and log."""
        if trainer.sanity_checking or not trainer.is_global_zero or pl_module.validated is None:
            return
        predictions, evaluation = pl_module.validated
        dataset = trainer.datamodule.val_dataset()  # type: ignore[attr-defined]
        skeleton = dataset.skeleton
        if self._people is None:
            self._people = people_of(load_annotations(dataset.annotations_file, dataset.category_id, skeleton))
        people = People(*(field[self._people.indices(predictions.annotation_id)] for field in self._people))
        similarity = keypoint_similarity(predictions.keypoints.double(), people.keypoints, people.area, skeleton)

        if evaluation.pck is not None:
            joints = zip(skeleton.names, evaluation.pck.per_joint.tolist(), strict=True)
            log_figures(trainer, {f"val_joints/PCK/{name}": value for name, value in joints})
        confidences = predictions.scores[people.labelled].numpy() if pl_module.model.scores_trained else None
        joint_oks = similarity[people.labelled].numpy()
        log_histogram(trainer, "val_distribution/joint_oks", joint_oks)
        precision = precision_curves(evaluation.precision)
        if precision:
            log_curves(trainer, "curves/precision_recall", precision, "precision by recall", "recall")
        if confidences is not None:
            log_histogram(trainer, "val_distribution/confidence", confidences)
            confidence, mean, _, _ = calibration(confidences, joint_oks)
            diagonal = (np.array([0.0, 1.0]), np.array([0.0, 1.0]))
            lines = {"model": (confidence, mean), "perfectly calibrated": diagonal}
            log_curves(trainer, "curves/calibration", lines, "joint OKS by confidence", "confidence")
        log_picture(trainer, self.picture, draw_curves(precision, confidences, joint_oks))
        if trainer.loggers:
            self._log_persons(trainer, pl_module, predictions, people, similarity)

    def _log_persons(
        self, trainer: Trainer, module: PoseModule, predictions: Predictions, people: People, similarity: Tensor
    ) -> None:
        """Log the table of persons."""
        model = module.model
        batch = sample_persons(trainer, self.persons, torch.device("cpu"))
        validated = torch.isin(batch.annotation_id, predictions.annotation_id)  # a limited validation skips some
        batch = PoseBatch(*(field[validated] for field in batch))
        scores = rescore(predictions.bbox_score, predictions.scores)
        order = torch.argsort(predictions.annotation_id)
        chosen = order[torch.searchsorted(predictions.annotation_id[order], batch.annotation_id)].tolist()
        rows, pictures = [], []
        for index, image, warp in zip(chosen, batch.image, batch.warp.double(), strict=True):
            labelled = people.labelled[index]
            predicted, true = (
                points[index].double() @ warp[:, :2].T + warp[:, 2]
                for points in (predictions.keypoints, people.keypoints)
            )
            crop = crop_image(image, model.mean, model.std)
            pictures.append(_draw_pair(crop, predicted, true, labelled, model.skeleton))
            joint_oks = float(similarity[index][labelled].mean()) if labelled.any() else None
            errors = (predicted - true).norm(dim=-1).tolist()
            shown = [error if seen else None for error, seen in zip(errors, labelled.tolist(), strict=True)]
            ids = (int(predictions.annotation_id[index]), int(predictions.image_id[index]))
            rows.append([trainer.current_epoch, *ids, joint_oks, float(scores[index]), *shown])
        columns = ["epoch", "person", "image", "OKS", "score", *(f"error of {name}" for name in model.skeleton.names)]
        log_table(trainer, "tables/persons", columns, rows, pictures)


def precision_curves(precision: NDArray | None) -> Curves:
    """Recalls (101,) and precisions (101,) by name; empty without sigmas or without persons.

    Args:
        precision: (10, 101) by OKS threshold and recall, as `coco_evaluation` returns it.
    """
    if precision is None or (precision < 0).any():
        return {}
    chosen = {"OKS 0.50": precision[0], "OKS 0.75": precision[5], "mean of 0.50 to 0.95": precision.mean(axis=0)}
    return {name: (RECALLS, values) for name, values in chosen.items()}


def draw_curves(precision: Curves, confidences: NDArray | None, similarity: NDArray) -> NDArray:
    """Draw precision by recall, histograms of OKS and confidence, and joint OKS by confidence.

    Args:
        precision: as `precision_curves` returns it; may be empty.
        confidences: (n,) confidences of labelled joints; None if no loss trains them.
        similarity: (n,) OKS of the same joints.

    Returns:
        (H, W, 3) uint8 RGB.
    """
    figure = Figure(figsize=(13, 3.8), dpi=100, layout="constrained")
    (left, middle, right) = figure.subplots(1, 3)
    for name, (recall, values) in precision.items():
        left.plot(recall, values, label=f"{name}: {values.mean():.3f}")
    left.set(title="precision by recall", xlabel="recall", ylabel="precision", xlim=(0, 1.02), ylim=(0, 1.02))
    middle.hist(similarity, bins=40, range=(0, 1), alpha=0.6, label="OKS")
    if precision:
        left.legend(fontsize=8)
    else:
        left.text(0.5, 0.5, "needs OKS sigmas", ha="center")
    if confidences is None:
        right.text(0.5, 0.5, "no loss trains confidence", ha="center")
    else:
        confidence, mean, counts, error = calibration(confidences, similarity)
        right.plot([0, 1], [0, 1], color="0.7", linestyle="--")
        right.plot(confidence, mean, color="C0")
        right.scatter(confidence, mean, s=10 + 200 * counts / max(1, counts.max(initial=0)), alpha=0.7)
        right.set_title(f"calibration (error {error:.3f})")
        middle.hist(confidences.clip(0, 1), bins=40, range=(0, 1), alpha=0.6, label="confidence")
    middle.set(title="labelled joints", ylabel="joints")
    middle.legend(fontsize=8)
    right.set(xlabel="confidence", ylabel="mean OKS of joints", xlim=(0, 1.05), ylim=(0, 1.05))
    return figure_to_picture(figure)


def _draw_pair(crop: NDArray, predicted: Tensor, true: Tensor, labelled: Tensor, skeleton: Any) -> NDArray:
    """Draw the crop with the true skeleton, and to its right with the predicted one."""
    truth = draw_skeleton(crop, true[None], labelled[None].double(), skeleton)
    return np.hstack([truth, draw_skeleton(crop, predicted[None], None, skeleton)])
