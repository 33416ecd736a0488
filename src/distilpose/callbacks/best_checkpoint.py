"""The best checkpoint: it has a value, and survives a move of the run's folder."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from lightning import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor

from distilpose.evaluation import has_value

log = logging.getLogger(__name__)


class BestCheckpoint(ModelCheckpoint):
    """Lightning's ModelCheckpoint with two differences.

    It keeps its best score if the run's folder was moved. Lightning forgets the score of a moved file, so a resumed run would
    replace the best checkpoint by the next one, even if that is worse.

    A validation in which the monitored metric has no value (NaN, or COCO's -1 for a set without such persons) is never the
    best. Lightning saves the first one, and it stays the best until another has a value.
    """

    _logged = False

    def check_monitor_top_k(self, trainer: Trainer, current: Tensor | None = None) -> bool:
        """Whether a validation is the best so far."""
        if current is None or has_value(str(self.monitor), float(current)):
            return super().check_monitor_top_k(trainer, current)
        if not self._logged:
            self._logged = True
            rank_zero_only(log.warning)(
                f"{self.monitor} has no value in the validation of epoch {trainer.current_epoch}, so it is not the best."
            )
        return False

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load the state, with its paths changed to the current folder."""
        folder = Path(self.dirpath or ".")
        old = state_dict.get("dirpath") or self.dirpath
        if old != self.dirpath and (folder / Path(state_dict["best_model_path"]).name).is_file():
            paths = {key: self._rebase(state_dict[key]) for key in ("best_model_path", "kth_best_model_path")}
            scores = {self._rebase(path): score for path, score in state_dict["best_k_models"].items()}
            state_dict = {**state_dict, **paths, "best_k_models": scores, "dirpath": self.dirpath}
        super().load_state_dict(state_dict)

    def _rebase(self, path: str) -> str:
        return str(Path(self.dirpath or ".") / Path(path).name) if path else path
