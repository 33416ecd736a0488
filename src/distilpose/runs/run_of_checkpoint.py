"""Settings and metrics of the run that a checkpoint belongs to."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from distilpose.models.checkpoint import saved_padding
from distilpose.runs.folders import CONFIG, SUMMARY

_PADDING = 1.25


def run_metrics(checkpoint: str | Path) -> dict[str, Any] | None:
    """The metrics.json of a checkpoint's run; None if the file is not in the folder of a run."""
    for folder in _run_folders(checkpoint):
        try:
            metrics = json.loads((folder / SUMMARY).read_text())
        except (OSError, ValueError):
            continue
        if isinstance(metrics, dict):
            return metrics
    return None


def run_padding(checkpoint: str | Path) -> float:
    """The box padding that the model was trained with, from its file or its run's settings; 1.25 if neither has it."""
    padding = saved_padding(Path(checkpoint))
    if padding is not None:
        return padding
    for folder in _run_folders(checkpoint):
        try:
            padding = OmegaConf.select(OmegaConf.load(folder / CONFIG), "data.padding")
        except (OSError, ValueError, OmegaConfBaseException):
            continue
        if isinstance(padding, (int, float)) and padding > 0:
            return float(padding)
    return _PADDING


def _run_folders(checkpoint: str | Path) -> list[Path]:
    """Possible folders of the run: the parent of checkpoints/, and the folder of the file itself."""
    folder = Path(checkpoint).resolve().parent
    return [folder.parent, folder] if folder.name == "checkpoints" else [folder]
