"""Decides what the train command does: a check, a search for a learning rate, a training, or nothing for a finished run."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from distilpose.cli.resolvers import AUTO
from distilpose.errors import DistilPoseError
from distilpose.models.checkpoint import read_torch_file
from distilpose.runs import resume
from distilpose.runs.config import flatten
from distilpose.runs.ended import best_of_checkpoint, has_ended
from distilpose.runs.folders import best_value
from distilpose.runs.lr_finder import with_rising_rate


class Action(Enum):
    """What the train command does."""

    CHECK = "try the complete run on a small scale"
    FIND_RATE = "suggest a learning rate"
    SKIP = "do nothing: the run is finished"
    START_PROCESS = "train in a new process"
    TRAIN = "train, or resume a training"


@dataclass(frozen=True)
class Plan:
    """The decision, with the configuration and checkpoint to use.

    Attributes:
        action: what to do.
        cfg: configuration to use; for a resumed run, the one saved in its folder.
        checkpoint: checkpoint to resume from, or the last of a finished run; None starts from the first step.
        best: best value of the monitored metric of a finished run.
        resume: the command line's setting of that name; in `cfg` it may be that of an earlier start.
    """

    action: Action
    cfg: DictConfig
    checkpoint: Path | None = None
    best: float | None = None
    resume: str | None = None


def decide(cfg: DictConfig, needs_process: bool = False) -> Plan:
    """Decide from the settings and the files in the run's folder what to do. Writes nothing.

    Args:
        cfg: configuration composed from `conf/train.yaml`.
        needs_process: whether this is a job of a sweep that must train in a new process.

    Raises:
        DistilPoseError: the settings contradict each other, or the run to resume has another configuration.
    """
    if cfg.check and cfg.lr_find:
        raise DistilPoseError("check=true and lr_find=true cannot be combined: run one after the other.")
    effective = resume.own_configuration(cfg)
    if cfg.check:
        return Plan(Action.CHECK, _without_recording(effective))
    if cfg.lr_find:
        return Plan(Action.FIND_RATE, with_rising_rate(effective))
    metrics = resume.finished(cfg)
    if metrics is not None:
        return Plan(Action.SKIP, effective, resume.find_checkpoint(cfg), best_value(metrics), cfg.resume)
    if needs_process:
        return Plan(Action.START_PROCESS, cfg)
    checkpoint = resume.find_checkpoint(cfg)
    if checkpoint is not None and effective is cfg and cfg.resume != AUTO:  # a file, which would start an empty run
        content = read_torch_file(checkpoint, mmap=True)
        if has_ended(cfg, content):
            return Plan(Action.SKIP, cfg, checkpoint, best_of_checkpoint(content), cfg.resume)
    return Plan(Action.TRAIN, effective, checkpoint, resume=cfg.resume)


def _without_recording(cfg: DictConfig) -> DictConfig:
    """The configuration without recording: recording can take hours and leaves files, so check=true must not do it."""
    changed = cfg.copy()
    for key in flatten(OmegaConf.to_container(cfg.teacher), "teacher."):  # one of several teachers may record too
        if key.endswith(".may_record"):
            OmegaConf.update(changed, key, False)
    return changed
