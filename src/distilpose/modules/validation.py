"""The validation of a training: its metrics, and whether those that callbacks monitor have a value."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from lightning.pytorch.utilities import rank_zero_only
from pycocotools.coco import COCO

from distilpose.evaluation import (
    Evaluation,
    beyond_limit,
    check_monitored,
    evaluate_dataset,
    load_coco,
    persons_by_metric,
)
from distilpose.outputs import Predictions

if TYPE_CHECKING:
    from lightning import Trainer

    from distilpose.data import CocoKeypoints

log = logging.getLogger(__name__)


class Validation:
    """Evaluates each validation of a training. Annotations are read once, and what its metrics leave out is logged once."""

    def __init__(self) -> None:
        self._truth: COCO | None = None
        self._logged: set[str] = set()

    def __call__(self, predictions: Predictions, dataset: CocoKeypoints) -> Evaluation:
        """Metrics of the predictions of all processes. If only some persons were shown, `persons` is one of the metrics."""
        if self._truth is None:
            self._truth = load_coco(dataset.annotations_file)
        evaluation = evaluate_dataset(predictions, dataset, self._truth)
        if dataset.skeleton.sigmas is not None:
            self._log_once("limit", beyond_limit(evaluation.rows, dataset.category_id))
        if evaluation.persons == evaluation.of_persons:
            return evaluation
        self._log_once("persons", f"The validation's metrics are on {evaluation.counted}.")
        return evaluation._replace(metrics={**evaluation.metrics, "persons": float(evaluation.persons)})

    def _log_once(self, kind: str, message: str | None) -> None:
        if message is not None and kind not in self._logged:
            self._logged.add(kind)
            log.warning(message)


def check_monitors(trainer: Trainer) -> None:
    """Check that every monitored metric of the validation has a value. Without one, the first checkpoint would stay the best.

    Raises:
        DistilPoseError: no validation person counts in a monitored metric; the message names the metrics that have a value.
    """
    named = [getattr(callback, "monitor", None) for callback in trainer.callbacks]  # type: ignore[attr-defined]
    monitors = {monitor for monitor in named if isinstance(monitor, str) and monitor.startswith("val/")}
    if not monitors:
        return
    dataset = trainer.datamodule.val_dataset()  # type: ignore[attr-defined]
    counts = persons_by_metric(dataset)
    for monitor in sorted(monitors):
        check_monitored(monitor, counts, dataset.annotations_file)
        counted = counts.get(monitor.removeprefix("val/"), 0)
        if monitor.startswith("val/PCK") and counted < len(dataset):
            rank_zero_only(log.info)(
                f"{monitor} is over {counted} of {len(dataset)} validation persons: the others lack the labelled joints that "
                "it measures by."
            )
