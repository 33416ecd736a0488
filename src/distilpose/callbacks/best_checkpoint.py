"""The best checkpoint, also of a run whose folder was moved."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightning.pytorch.callbacks import ModelCheckpoint


class BestCheckpoint(ModelCheckpoint):
    """Lightning's ModelCheckpoint, keeping the best score where its folder was moved and the best file came along.

    Lightning forgets it then, so that a resumed run would write its next checkpoint, however bad, over the best one.
    """

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up the state, with its paths in the folder as it is now."""
        place = Path(self.dirpath or ".")
        old = state_dict.get("dirpath") or self.dirpath
        if old != self.dirpath and (place / Path(state_dict["best_model_path"]).name).is_file():
            moved = {key: self._here(state_dict[key]) for key in ("best_model_path", "kth_best_model_path")}
            kept = {self._here(path): score for path, score in state_dict["best_k_models"].items()}
            state_dict = {**state_dict, **moved, "best_k_models": kept, "dirpath": self.dirpath}
        super().load_state_dict(state_dict)

    def _here(self, path: str) -> str:
        return str(Path(self.dirpath or ".") / Path(path).name) if path else path
