"""Settings and metrics of the run that a checkpoint belongs to.

The file of a model states the padding of its training. Files of earlier versions do not: then the configuration of the run
beside the file states it, and without one 1.25 is assumed, with a warning.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

from distilpose.models.checkpoint import saved_padding
from distilpose.models.prediction_settings import valid_padding
from distilpose.runs.folders import CONFIG, SUMMARY, UNREADABLE

log = logging.getLogger(__name__)

PADDING = 1.25


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


def known_padding(checkpoint: str | Path) -> float | None:
    """The box padding that a model was trained with: its file states it, else its run's settings; None if neither does.

    If both state it and differ, the file's own value is used, with a warning.
    """
    own, beside = saved_padding(Path(checkpoint)), next(_paddings_beside(checkpoint), None)
    if own is None:
        return None if beside is None else beside[1]
    if beside is not None and beside[1] != own:
        log.warning(
            f"{checkpoint} was trained with padding {own:g}, but {beside[0]} states {beside[1]:g}: {own:g} is used, as the "
            "file states it."
        )
    return own


def states_padding(checkpoint: str | Path) -> bool:
    """Whether a model's file or its run's settings state the padding of its training."""
    return saved_padding(Path(checkpoint)) is not None or any(_paddings_beside(checkpoint))


def run_padding(checkpoint: str | Path, given: float | None = None) -> float:
    """The box padding to predict with: the given one, else `known_padding`, else 1.25 with a warning.

    Args:
        checkpoint: file of the model.
        given: the command's own setting; one that differs from the training's is logged.
    """
    known = known_padding(checkpoint)
    if given is not None:
        if known not in (None, given):
            log.info(f"padding={given:g} is used, although {checkpoint} was trained with {known:g}.")
        return given
    if known is None:
        log.warning(
            f"{checkpoint} does not state the padding of its training, and no {CONFIG} of its run is beside it: {PADDING} is "
            "assumed, give padding=… if it was another."
        )
        return PADDING
    return known


def data_padding(checkpoint: str | Path, data: Mapping[str, Any]) -> dict[str, float]:
    """The padding that a data set needs to show a model its persons as in its training, as an argument of the data module.

    Args:
        checkpoint: file of the model.
        data: settings of the data set. A `data.padding=…` on the command line is kept, and logged if it differs.

    Returns:
        {"padding": value}; empty if the data's own is right.
    """
    known, own = known_padding(checkpoint), data.get("padding")
    if known is None or own is None or known == own:
        return {}
    words = HydraConfig.get().overrides.task if HydraConfig.initialized() else ()
    if any(word.lstrip("+").startswith("data.padding=") for word in words):
        log.info(f"data.padding={own:g} is used, although {checkpoint} was trained with {known:g}.")
        return {}
    log.info(f"Padding {known:g} is used, with which {checkpoint} was trained, and not {own:g} of the data's settings.")
    return {"padding": known}


def _paddings_beside(checkpoint: str | Path) -> Iterator[tuple[Path, float]]:
    """The config.yaml of the run, and the padding that it states."""
    for folder in _run_folders(checkpoint):
        try:
            padding = OmegaConf.select(OmegaConf.load(folder / CONFIG), "data.padding")
        except UNREADABLE:
            continue
        if (value := valid_padding(padding)) is not None:
            yield folder / CONFIG, value


def _run_folders(checkpoint: str | Path) -> list[Path]:
    """Possible folders of the run: the parent of checkpoints/, and the folder of the file itself."""
    folder = Path(checkpoint).resolve().parent
    return [folder.parent, folder] if folder.name == "checkpoints" else [folder]
