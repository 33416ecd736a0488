"""Reads facts about a model for its card from the files of its run and of its evaluations."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from typing import Any, NamedTuple

from omegaconf import DictConfig, OmegaConf

from distilpose.errors import DistilPoseError
from distilpose.files import sha256_of
from distilpose.models import PoseModel
from distilpose.models.checkpoint import read_torch_file
from distilpose.runs.config import flatten
from distilpose.runs.folders import CONFIG, SUMMARY, UNREADABLE

log = logging.getLogger(__name__)

# checkpoints whose figures are in the run's metrics.json
MEASURED = {"checkpoints/best.ckpt": "best", "checkpoints/last.ckpt": "last"}


class RunFacts(NamedTuple):
    """Facts as read from the files, not escaped.

    Attributes:
        name: name of the model.
        licence: identifier of the licence.
        data: a sentence on the data, from `data_note`.
        config: settings of the run by dotted key.
        environment: the run's environment.json.
        validation: figures of the run for this checkpoint, by column of metrics.csv.
        evaluations: content of each metrics.json that `evaluate` wrote.
    """

    name: str
    licence: str | None
    data: str | None
    config: dict[str, Any]
    environment: dict[str, Any]
    validation: dict[str, float]
    evaluations: list[dict[str, Any]]


def read_facts(model: PoseModel, run: Path | None, checkpoint: Path, cfg: DictConfig) -> RunFacts:
    """Read the folders of a run and of evaluations.

    Args:
        model: the shared model.
        run: folder of its run; None if unknown.
        checkpoint: its file.
        cfg: settings of `share`.

    Raises:
        DistilPoseError: a file cannot be read, or an evaluation is of another model.
    """
    config: dict[str, Any] = {}
    environment: dict[str, Any] = {}
    figures: dict[str, Any] = {}
    if run is not None:
        config = flatten(_read(run / CONFIG))
        environment = _read(run / "environment.json") if (run / "environment.json").is_file() else {}
        kind = MEASURED.get(Path(os.path.relpath(checkpoint, run)).as_posix())
        if kind is not None and cfg.weights_kind == "averaged" and (run / SUMMARY).is_file():
            figures = _of_checkpoint(_read(run / SUMMARY).get(kind) or {}, checkpoint)
    paths = [cfg.evaluations] if isinstance(cfg.evaluations, str) else cfg.evaluations
    evaluations = [_read_evaluation(Path(path), checkpoint, cfg.weights_kind) for path in paths]
    validation = {key.removeprefix("val/"): value for key, value in figures.items() if key.startswith("val/")}
    name = cfg.name or config.get("name") or model.name
    return RunFacts(str(name), cfg.licence, cfg.data_note, config, environment, validation, evaluations)


def _of_checkpoint(figures: dict[str, Any], checkpoint: Path) -> dict[str, Any]:
    """Figures of a run's metrics.json if they are of the checkpoint's step; empty with a warning if not."""
    step, trained = figures.get("step"), read_torch_file(checkpoint, mmap=True).get("global_step")
    if None in (step, trained) or step == trained:
        return figures
    log.warning(
        f"{checkpoint} is of step {trained}, but {SUMMARY} of its run of step {step}: its figures are left out."
    )
    return {}


def _read_evaluation(path: Path, checkpoint: Path, weights_kind: str) -> dict[str, Any]:
    content = _read(path / SUMMARY if path.is_dir() else path)
    evaluated_file = content.get("checkpoint")
    if isinstance(evaluated_file, dict) and content.get("rows"):
        wanted = {"sha256": sha256_of(checkpoint), "weights_kind": weights_kind}
        if evaluated_file != wanted:
            raise DistilPoseError(
                f"{path} has figures of other weights than {checkpoint} with weights_kind={weights_kind} "
                f"({json.dumps(evaluated_file)}, expected {json.dumps(wanted)}): evaluate that file, or leave it out."
            )
        return content
    source = str(content.get("source")).partition(" (")[2].removesuffix(")")
    shared, evaluated = checkpoint.resolve(), Path(source)  # the second may be relative to another folder
    same = evaluated.resolve() == shared or (source and shared.parts[-len(evaluated.parts) :] == evaluated.parts)
    if not content.get("rows") or not same:
        raise DistilPoseError(
            f"{path} has no figures of {checkpoint} (its model is {source or 'unknown'}): give the folder that "
            "distilpose.evaluate wrote for that checkpoint."
        )
    log.warning(f"{path} does not state the digest of its checkpoint: by its path, it is taken for {checkpoint}.")
    return content


def _read(file: Path) -> dict[str, Any]:
    """A file of plain containers, YAML or JSON."""
    try:
        text = file.read_text()
        content: Any = json.loads(text) if file.suffix == ".json" else OmegaConf.to_container(OmegaConf.create(text))
        return dict(content)
    except UNREADABLE as error:
        raise DistilPoseError(
            f"{file} cannot be read ({' '.join(str(error).split())}): give a folder that a run or an evaluation wrote."
        ) from error
