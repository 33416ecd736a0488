"""Pictures of a distillation's health: loss terms, predicted sigmas, and calibration of the confidence."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import numpy as np
from annotated_types import Ge
from lightning import Callback, LightningModule, Trainer
from matplotlib.figure import Figure

from distilpose.data.units import AREA_OF_BOX
from distilpose.evaluation import calibration, keypoint_similarity
from distilpose.loggers.tables import log_histogram
from distilpose.losses import DistillationLoss
from distilpose.modules.pose_module import PoseModule
from distilpose.outputs import StudentOutput
from distilpose.visualization.samples import figure_to_picture, log_picture, sample_persons


class DistillationHealth(Callback):
    """Draw three plots of a student into one PNG after each validation, and log their figures.

    Left: each weighted loss term over training. Middle: the histogram of predicted sigmas in heat-map cells. Right: the
    mean object keypoint similarity of joints by confidence, with the expected calibration error.

    Args:
        folder: folder of health.png.
        persons: number of validation persons that are evaluated.
    """

    def __init__(self, folder: str | Path, persons: Annotated[int, Ge(1)] = 256):
        self.folder = Path(folder)
        self.persons = persons
        self.terms: list[dict[str, float]] = []

    def state_dict(self) -> dict[str, Any]:
        """The loss terms so far, so that a resumed run draws all of them."""
        return {"terms": self.terms}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the loss terms of the resumed run."""
        self.terms = list(state_dict["terms"])

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep the epoch's mean of each term."""
        if isinstance(pl_module, PoseModule):
            pl_module.log_epoch_means()
        names = getattr(pl_module.loss, "weights", {})
        logged = {name: trainer.callback_metrics.get(f"train/{name}_epoch") for name in names}
        row = {name: float(value) for name, value in logged.items() if value is not None and value != 0}
        self.terms.append({"epoch": trainer.current_epoch, **row})

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: PoseModule) -> None:  # type: ignore[override]
        """Evaluate some persons and draw."""
        if trainer.sanity_checking or not trainer.is_global_zero or not isinstance(pl_module.loss, DistillationLoss):
            return
        batch = sample_persons(trainer, self.persons, pl_module.device)
        output = StudentOutput(*(field.float() for field in pl_module.model(batch.image)))

        labelled = batch.weights > 0
        height, width = pl_module.model.input_size
        extent = batch.keypoints.new_tensor([width, height])
        # from pixels of the image to pixels of the crop
        scale = batch.warp[:, 0, :2].norm(dim=-1)
        area = AREA_OF_BOX * batch.bbox[:, 2:].prod(dim=-1) * scale**2
        skeleton = pl_module.model.skeleton
        joint_oks = keypoint_similarity(output.keypoints * extent, batch.keypoints * extent, area, skeleton)
        similarity = joint_oks[labelled].cpu().numpy()
        scores = output.scores[labelled].cpu().numpy()
        sigmas = output.sigmas[labelled].cpu().numpy()

        if not len(similarity):
            return  # none of these persons has a labelled joint inside its crop
        figures = {"sigma_median": float(np.median(sigmas)), "joint_oks": float(similarity.mean())}
        if pl_module.loss.trains_scores:
            figures["calibration_error"] = calibration(scores, similarity)[3]
        pl_module.log_dict({f"health/{name}": value for name, value in figures.items()}, rank_zero_only=True)
        for axis, name in enumerate("xy"):
            log_histogram(trainer, f"val_distribution/sigma_{name}", sigmas[:, axis])
        figure = self._draw(sigmas, scores, similarity, pl_module.loss.trains_scores)
        log_picture(trainer, self.folder / "health.png", figure)

    def _draw(self, sigmas: np.ndarray, scores: np.ndarray, similarity: np.ndarray, trained: bool) -> np.ndarray:
        """The three plots as one (H, W, 3) uint8 RGB picture."""
        figure = Figure(figsize=(13, 3.8), dpi=100, layout="constrained")
        (left, middle, right) = figure.subplots(1, 3)
        for name in dict.fromkeys(key for row in self.terms for key in row if key != "epoch"):
            points = [(row["epoch"], row[name]) for row in self.terms if name in row]
            left.plot(*zip(*points, strict=True), marker=".", label=name.replace("_", " "))
        # a likelihood may be negative, which a logarithmic axis cannot show
        negative = any(value < 0 for row in self.terms for value in row.values())
        left.set(title="weighted loss terms", xlabel="epoch", yscale="symlog" if negative else "log")
        if left.lines:
            left.legend(fontsize=8)
        sigmas = sigmas[np.isfinite(sigmas).all(axis=1)]  # the module reports a diverged training
        limit = float(np.percentile(sigmas, 99)) if len(sigmas) else 1.0
        for axis, name in enumerate(("sigma x", "sigma y")):
            middle.hist(sigmas[:, axis], bins=40, range=(0, max(limit, 1e-3)), alpha=0.6, label=name)
        middle.set(title="predicted sigmas", xlabel="heat-map cells", ylabel="joints")
        middle.legend(fontsize=8)
        if trained:
            centres, means, counts, error = calibration(scores, similarity)
            right.plot([0, 1], [0, 1], color="0.7", linestyle="--")
            right.scatter(centres, means, s=10 + 200 * counts / max(1, counts.max(initial=0)), alpha=0.7)
            right.set(title=f"confidence and OKS (calibration error {error:.2f})", xlim=(0, 1.05), ylim=(0, 1.05))
        else:
            right.hist(similarity, bins=40, range=(0, 1))
            right.set(title="OKS of joints (no term trains confidence)", ylabel="joints")
        right.set(
            xlabel="OKS of the joint" if not trained else "confidence", **({"ylabel": "mean OKS"} if trained else {})
        )
        return figure_to_picture(figure)
