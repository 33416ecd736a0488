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
    """The metrics.json of a checkpoint's run; None where the file lies in no run's folder."""
    for folder in _run_folders(checkpoint):
        try:
            found = json.loads((folder / SUMMARY).read_text())
        except (OSError, ValueError):
            continue
        if isinstance(found, dict):
            return found
    return None


def run_padding(checkpoint: str | Path) -> float:
    """The factor on boxes that the model was trained with, by its file or its run's settings; 1.25 where neither has it."""
    padding = saved_padding(Path(checkpoint))
    if padding is not None:
        return padding
    for folder in _run_folders(checkpoint):
        try:
            found = OmegaConf.select(OmegaConf.load(folder / CONFIG), "data.padding")
        except (OSError, ValueError, OmegaConfBaseException):
            continue
        if isinstance(found, (int, float)) and found > 0:
            return float(found)
    return _PADDING


def _run_folders(checkpoint: str | Path) -> list[Path]:
    """RUN of RUN/checkpoints/FILE and RUN/FILE."""
    folder = Path(checkpoint).resolve().parent
    return [folder.parent, folder] if folder.name == "checkpoints" else [folder]
