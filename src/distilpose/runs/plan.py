"""What a start of the train command does: checks, searches for a learning rate, trains, or finds a run that has ended."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from distilpose.errors import DistilPoseError
from distilpose.runs import resume
from distilpose.runs.folders import best_value
from distilpose.runs.lr_finder import with_rising_rate


class Action(Enum):
    """What to do with a configuration."""

    CHECK = "do all of the run on a small scale"
    FIND_RATE = "suggest a learning rate"
    SKIP = "the run has reached its end already"
    START_PROCESS = "train in a process of its own"
    TRAIN = "train, or resume a training"


@dataclass(frozen=True)
class Plan:
    """What to do, and with what.

    Attributes:
        action: what to do.
        cfg: configuration to do it with; of a resumed run its own.
        checkpoint: to resume from; None starts from the first step.
        best: value of the monitored metric that an ended run has reached.
    """

    action: Action
    cfg: DictConfig
    checkpoint: Path | None = None
    best: float | None = None


def decide(cfg: DictConfig, needs_process: bool = False) -> Plan:
    """Decide what to do, by the settings and by what lies in the run's folder; writes nothing.

    Args:
        cfg: as composed from `conf/train.yaml`.
        needs_process: whether this is a job of a sweep that has to train in a process of its own.

    Raises:
        DistilPoseError: the settings contradict each other, or the run to resume is another one.
    """
    if cfg.check and cfg.lr_find:
        raise DistilPoseError("check=true and lr_find=true cannot be combined: run one after the other.")
    own = resume.own_configuration(cfg)
    if cfg.check:
        return Plan(Action.CHECK, _without_recording(own))
    if cfg.lr_find:
        return Plan(Action.FIND_RATE, with_rising_rate(own))
    metrics = resume.finished(cfg)
    if metrics is not None:
        return Plan(Action.SKIP, own, best=best_value(metrics))
    if needs_process:
        return Plan(Action.START_PROCESS, cfg)
    return Plan(Action.TRAIN, own, resume.find_checkpoint(cfg))


def _without_recording(cfg: DictConfig) -> DictConfig:
    """A teacher may record its output for all persons first, which can take hours, and stays."""
    if "may_record" not in cfg.teacher:
        return cfg
    return OmegaConf.merge(cfg, {"teacher": {"may_record": False}})  # type: ignore[return-value]
