"""Pruning of the trials of a search: a trial that falls behind is stopped after a validation.

Optuna's Lightning callback is not used: it needs optuna's Trial object, which a training in a separate process does not have.
"""

from __future__ import annotations

import logging
import math
from pathlib import Path
from typing import Annotated

from annotated_types import Ge
from lightning import Callback, LightningModule, Trainer

from distilpose.callbacks.study import SharedStudy
from distilpose.evaluation import has_value
from distilpose.modules.processes import from_first_process

log = logging.getLogger(__name__)


class Pruning(Callback):
    """Report the monitored metric to the search after each validation, and stop the run if the search prunes it.

    Args:
        folder: folder of the search.
        trial: number of this run's trial; null reports nothing, for example when the best trial is trained again.
        monitor: metric to report, the higher the better.
        startup: number of finished trials before any is pruned.
        warmup: number of epochs before a trial may be pruned.
    """

    def __init__(
        self,
        folder: str | Path,
        trial: Annotated[int, Ge(0)] | None,
        monitor: str,
        startup: Annotated[int, Ge(1)],
        warmup: Annotated[int, Ge(0)],
    ):
        self.folder, self.number, self.monitor = Path(folder), trial, monitor
        self.startup, self.warmup = startup, warmup

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Report, and stop all processes together."""
        if trainer.sanity_checking or self.number is None:
            return
        number, epoch = self.number, trainer.current_epoch + 1
        if from_first_process(trainer, lambda: self._falls_behind(number, epoch, trainer)):
            trainer.should_stop = True

    def _falls_behind(self, number: int, epoch: int, trainer: Trainer) -> bool:
        value = float(trainer.callback_metrics.get(self.monitor, math.nan))
        if not has_value(self.monitor, value):  # optuna would prune every trial without one
            log.warning(
                f"Trial {number} has no {self.monitor} after epoch {epoch}: it is not compared with other trials."
            )
            return False
        study = SharedStudy(self.folder, self.startup, self.warmup)
        study.report(number, epoch, value)
        if epoch >= (trainer.max_epochs or 0) or not study.should_prune(number):
            return False
        study.set_attribute(number, "pruned", True)
        log.info(f"Trial {number} is pruned after epoch {epoch}: its best value is below the median of earlier trials.")
        return True
