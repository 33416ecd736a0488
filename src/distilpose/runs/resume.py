"""Resuming a training: the configuration and the checkpoint to use.

What may change between the starts of a run:

    setting                               resume=auto          resume=FOLDER
    ------------------------------------  -------------------  ---------------------------------------
    folders, logging, workers (RULES)     may differ           may be changed
    effective batch (SPLIT, see below)    must be equal        may be changed by data.batch_size or batch_may_change=true
    optimizer.…                           must be equal        cannot be changed (its state is in the checkpoint)
    a group, such as model=NAME, or ~…    must be equal        cannot be changed
    any other setting                     must be equal        may be changed, such as trainer.max_epochs=20
    one that is new in this version       ignored (except      may be added by +
                                          `_new_settings`)

The effective batch is data.batch_size x devices x machines x trainer.accumulate_grad_batches. These four may differ as long as
their product is the checkpoint's (`distilpose.runs.effective_batch`), in the middle of an epoch too. With batch_may_change=true
it may differ at one start. A resumed run does not read weights=FILE, ImageNet weights and the teacher's backbone again.

resume=auto compares the composed configuration with the one in the run's own folder. resume=FOLDER uses the configuration
in that folder, changed by the command line. resume=FILE uses the composed configuration.
Lightning restores the state from a checkpoint; it does not save the configuration.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from hydra.core.hydra_config import HydraConfig
from lightning.pytorch.utilities import rank_zero_only
from omegaconf import DictConfig, OmegaConf

from distilpose.cli.resolvers import AUTO
from distilpose.errors import DistilPoseError
from distilpose.models.checkpoint import read_torch_file
from distilpose.runs.checkpoints import IntactCheckpoint, newest_intact
from distilpose.runs.config import callbacks_of, flatten, is_in, is_teacher_check
from distilpose.runs.effective_batch import SPLIT, batch_of_checkpoint, check_effective_batch
from distilpose.runs.ended import ended_message, has_ended, stopped_early
from distilpose.runs.folders import CONFIG, SUMMARY
from distilpose.runs.saved_config import read_config

log = logging.getLogger(__name__)


class Rule(NamedTuple):
    """What may change about some settings.

    Attributes:
        settings: dotted keys of settings or groups.
        auto: whether resume=auto accepts another value.
        folder: whether resume=FOLDER accepts another value.
    """

    settings: tuple[str, ...]
    auto: bool
    folder: bool


FREE = Rule((), auto=True, folder=True)
# the first matching rule applies
RULES = (
    Rule(
        (
            "folder", "resume", "batch_may_change", "check", "lr_find", "logger", "data.num_workers",
            "trainer.default_root_dir", "trainer.enable_progress_bar", "trainer.log_every_n_steps",
            "trainer.num_sanity_val_steps", "trainer.profiler", "callbacks.progress",
        ),
        auto=True,
        folder=True,
    ),
    Rule(("optimizer",), auto=False, folder=False),
)  # fmt: skip
OTHER = Rule((), auto=False, folder=True)


def rule_of(setting: str) -> Rule:
    """The rule for the setting with this dotted key."""
    if is_teacher_check(setting):
        return FREE
    return next((rule for rule in RULES if is_in(setting, rule.settings)), OTHER)


def own_configuration(cfg: DictConfig) -> DictConfig:
    """The configuration to train: `cfg`, or with `resume=FOLDER` the one in that folder, changed by the command line.

    Raises:
        DistilPoseError: the folder holds no run, or the command line changes a fixed setting (see `RULES`).
    """
    # a value of another type is an error in the validation of the configuration
    if not isinstance(cfg.resume, str) or cfg.resume == AUTO or Path(cfg.resume).is_file():
        return cfg
    folder = Path(cfg.resume)
    if newest_intact(folder) is None or not (folder / CONFIG).is_file():
        raise DistilPoseError(
            f"resume={cfg.resume} holds no {CONFIG} with an intact checkpoint: give the folder of a run that has finished at "
            "least one epoch, or a checkpoint file."
        )
    hydra = HydraConfig.get()
    changes = [change for change in hydra.overrides.task if not change.startswith("resume=")]
    names = {change: change.lstrip("+").split("=")[0] for change in changes}
    fixed = [
        change
        for change, name in names.items()
        if change.startswith("~") or name in hydra.runtime.choices or not rule_of(name).folder
    ]
    if fixed:
        raise DistilPoseError(
            f"{', '.join(fixed)} cannot be changed in a resumed run, which keeps its groups and the optimizer's state with its "
            "rate: leave it out, or start a new run with weights=FILE."
        )
    saved = read_config(folder)
    saved.batch_may_change = False  # holds for one start
    OmegaConf.set_struct(saved, True)  # then OmegaConf raises an error for an unknown setting
    changed = OmegaConf.merge(saved, OmegaConf.from_dotlist([change for change in changes if change[0] != "+"]))
    OmegaConf.set_struct(changed, False)
    added = [change.lstrip("+") for change in changes if change[0] == "+"]
    return OmegaConf.merge(changed, OmegaConf.from_dotlist(added))  # type: ignore[return-value]


def find_checkpoint(cfg: DictConfig) -> Path | None:
    """The checkpoint to resume from; None for a new run.

    Raises:
        DistilPoseError: with `resume=auto`, the run's folder holds a run of another configuration.
    """
    if cfg.resume is None:
        return None
    if cfg.resume != AUTO and Path(cfg.resume).is_file():
        return Path(cfg.resume)
    checkpoint = _newest(cfg)
    return None if checkpoint is None else checkpoint.path


def _newest(cfg: DictConfig) -> IntactCheckpoint | None:
    """The newest intact checkpoint in the folder that `resume` names."""
    return _own_checkpoint(cfg) if cfg.resume == AUTO else newest_intact(Path(cfg.resume))


def finished(cfg: DictConfig) -> dict[str, Any] | None:
    """The metrics.json of the run to resume if that run is finished, else None.

    A run stopped early is finished for `resume=auto` (the same command again), but not for `resume=FOLDER` (a request to
    train longer).
    """
    folder = Path(cfg.folder if cfg.resume == AUTO else cfg.resume or "")
    if cfg.resume is None or not (folder / SUMMARY).is_file():
        return None
    checkpoint = _newest(cfg)
    try:
        metrics = json.loads((folder / SUMMARY).read_text())
        steps, epoch = metrics["last"]["step"], int(metrics["last"]["epoch"])
    except (ValueError, KeyError, TypeError):  # damaged: the resumed run writes it again
        return None
    if checkpoint is None or checkpoint.step < steps:  # the run was killed between the table and the checkpoint
        return None
    trainer = own_configuration(cfg).trainer
    limit = trainer.get("max_steps", -1)
    ended = epoch + 1 >= trainer.max_epochs or (limit != -1 and checkpoint.step >= limit)
    if not ended and cfg.resume == AUTO:
        ended = stopped_early(read_torch_file(checkpoint.path, mmap=True)) == epoch
    return metrics if ended else None


def check_resumed(cfg: DictConfig, checkpoint: Path, resume: str | None) -> None:
    """Check that a run can be resumed from a checkpoint as it was trained so far, and log if it had ended.

    Args:
        cfg: configuration to train.
        checkpoint: the file.
        resume: the command line's setting of that name; that of `cfg` may be the one of an earlier start.

    Raises:
        DistilPoseError: the effective batch has changed (`check_effective_batch`).
    """
    content = read_torch_file(checkpoint, mmap=True)
    check_effective_batch(cfg, content, same_command=resume == AUTO)
    if has_ended(cfg, content):
        rank_zero_only(log.info)(f"{checkpoint}: {ended_message(cfg, content, str(resume))}")
    elif (epoch := stopped_early(content)) is not None:
        rank_zero_only(log.info)(
            f"{checkpoint}: callbacks.early_stopping had ended the run in epoch {epoch}; it is trained for longer."
        )


def _own_checkpoint(cfg: DictConfig) -> IntactCheckpoint | None:
    """The newest checkpoint in the run's own folder, which must have the same configuration; None for an empty folder."""
    folder = Path(cfg.folder)
    if not (folder / CONFIG).is_file():
        if newest_intact(folder) is not None:
            raise DistilPoseError(
                f"'{folder}' holds a checkpoint but no {CONFIG}, so resume=auto can neither resume it nor start a new run: put "
                "the file back, or choose another hydra.run.dir."
            )
        return None
    old, new = (flatten(OmegaConf.to_container(config, resolve=True)) for config in (read_config(folder), cfg))
    checkpoint = newest_intact(folder)
    # what divides the batch is compared as a product, by `check_effective_batch`
    divided = (
        SPLIT if checkpoint is not None and batch_of_checkpoint(read_torch_file(checkpoint.path, mmap=True)) else ()
    )
    compared = [key for key in {*old, *_new_settings(old, new)} if key not in divided and not rule_of(key).auto]
    changed = sorted(key for key in compared if old.get(key) != new.get(key))
    if changed:
        values = ", ".join(f"{key}={json.dumps(old.get(key), default=str)}" for key in changed[:3])
        raise DistilPoseError(
            f"'{folder}' holds a run of another configuration ({values}{', …' if len(changed) > 3 else ''}), so resume=auto "
            f"does not resume it: give those values, change single ones by resume='{folder}' setting=value, or choose another "
            "hydra.run.dir (hydra.sweep.dir of a sweep)."
        )
    return checkpoint


def _new_settings(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Dotted keys of new settings that are compared although the saved configuration does not have them.

    Settings that are new in this version of the package are ignored, unless the command line sets them, they fill a group
    that was null, or they belong to a callback that changes the training.
    """
    named: set[str] = set()
    if HydraConfig.initialized():
        hydra = HydraConfig.get()
        named = {override.lstrip("+").split("=")[0] for override in hydra.overrides.task} - set(hydra.runtime.choices)
    training = {name for name, observes in callbacks_of(new).items() if not observes}
    return [key for key in new if is_in(key, [*named, *old, *training])]
