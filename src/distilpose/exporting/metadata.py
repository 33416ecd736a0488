"""What an exported file says of itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

import distilpose
from distilpose.exported_file import FORMAT
from distilpose.exporting.graph import output_names
from distilpose.models.checkpoint import saved_padding
from distilpose.models.model import PoseModel
from distilpose.provenance import digests
from distilpose.run_folders import CONFIG, SUMMARY

_PADDING = 1.25


def describe(
    model: PoseModel,
    checkpoint: str | Path,
    weights_kind: str,
    precision: str,
    normalise: bool,
    sigmas: bool,
    padding: float,
) -> dict[str, Any]:
    """The metadata of an export, in plain containers; no path of this machine is in it.

    Args:
        model: what is exported.
        checkpoint: the file it comes from; `metrics.json` of its run is taken up where there is one.
        weights_kind: averaged or raw.
        precision: float32, float16 or int8.
        normalise: whether the graph takes (N, H, W, 3) uint8 in place of normalised (N, 3, H, W) float32.
        sigmas: whether a student's sigmas are given; a teacher's heat maps always are.
        padding: factor on a person's box.
    """
    names = output_names(model.kind, sigmas or model.kind == "teacher")
    return {
        "format": FORMAT,
        "version": distilpose.__version__,
        "model": model.name,
        "kind": model.kind,
        "skeleton": model.skeleton.to_dict(),
        "input_size": list(model.input_size),
        "mean": list(model.mean),
        "std": list(model.std),
        "normalise": normalise,
        "padding": padding,
        "precision": precision,
        "outputs": names,
        "scores_trained": model.scores_trained,
        "checkpoint": {
            "file": Path(checkpoint).name,
            "sha256": digests({"weights": checkpoint})["weights"]["sha256"],
            "weights_kind": weights_kind,
        },
        "metrics": run_metrics(checkpoint),
    }


def run_metrics(checkpoint: str | Path) -> dict[str, Any] | None:
    """The run's `metrics.json`, of a checkpoint that lies in a run's folder or beside one; None without."""
    for folder in _run_folders(checkpoint):
        try:
            found = json.loads((folder / SUMMARY).read_text())
        except (OSError, ValueError):
            continue
        if isinstance(found, dict):
            return found
    return None


def run_padding(checkpoint: str | Path) -> float:
    """The factor on boxes the model was trained with, as its file or its run's settings have it; 1.25 where neither does."""
    told = saved_padding(Path(checkpoint))
    if told is not None:
        return told
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
