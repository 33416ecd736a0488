"""The best checkpoint, which also survives a move of the run's folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightning.pytorch.callbacks import ModelCheckpoint


class BestCheckpoint(ModelCheckpoint):
    """Lightning's ModelCheckpoint, which also keeps its best score if the run's folder was moved.

    Lightning forgets the score of a moved file, so a resumed run would replace the best checkpoint by the next one, even if
    that is worse.
    """

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
