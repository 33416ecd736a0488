"""Resuming a training: which configuration and which checkpoint it continues with.

What may change between the starts of a run:

    setting                               resume=auto          resume=FOLDER
    ------------------------------------  -------------------  ---------------------------------------
    where and how it is watched (RULES)   may differ           may be changed
    optimizer.…                           must be equal        stays, as the checkpoint holds its state
    a group, such as model=NAME, or ~…    must be equal        stays
    any other setting                     must be equal        may be changed, such as trainer.max_epochs=20
    one that is new in this version       ignored (but see     may be added by +
                                          `_new_settings`)

resume=auto compares the configuration as composed with the one in the run's own folder. resume=FOLDER takes the
configuration in that folder and changes it by the command line. resume=FILE takes the configuration as composed.
Lightning restores the state from a checkpoint; it keeps no configuration.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigKeyError

from distilpose.cli.resolvers import AUTO
from distilpose.errors import DistilPoseError
from distilpose.runs.checkpoints import Found, newest_intact
from distilpose.runs.config import callbacks_of, flatten, is_in
from distilpose.runs.folders import CONFIG, SUMMARY
from distilpose.runs.saved_config import read_config


class Rule(NamedTuple):
    """What may change about some settings.

    Attributes:
        settings: their dotted keys, or those of groups that they are in.
        auto: whether resume=auto accepts another value.
        folder: whether resume=FOLDER accepts another value.
    """

    settings: tuple[str, ...]
    auto: bool
    folder: bool


# the first rule that names a setting counts
RULES = (
    Rule(
        (
            "folder", "resume", "check", "lr_find", "logger", "data.num_workers", "teacher.check", "teacher.check_persons",
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
    """The rule for a setting, by its dotted key."""
    return next((rule for rule in RULES if is_in(setting, rule.settings)), OTHER)


def own_configuration(cfg: DictConfig) -> DictConfig:
    """The configuration to train: with `resume=FOLDER` the one in that folder, changed by the command line, else `cfg`.

    Raises:
        DistilPoseError: the folder holds no run, or the command line changes what stays (see `RULES`).
    """
    if cfg.resume in (None, AUTO) or Path(cfg.resume).is_file():
        return cfg
    place = Path(cfg.resume)
    if newest_intact(place) is None or not (place / CONFIG).is_file():
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
            f"{', '.join(fixed)} cannot be changed in a resumed run: its groups stay, and its optimizer continues from the "
            "checkpoint's state, rate included. Leave it out, or start a new run with weights=FILE."
        )
    saved = read_config(place)
    OmegaConf.set_struct(saved, True)
    try:
        changed = OmegaConf.merge(saved, OmegaConf.from_dotlist([change for change in changes if change[0] != "+"]))
    except ConfigKeyError as error:
        raise DistilPoseError(
            f"The run in {cfg.resume} has no setting {error.full_key}: see its {CONFIG}, or add it by +{error.full_key}=…"
        ) from error
    OmegaConf.set_struct(changed, False)
    added = [change.lstrip("+") for change in changes if change[0] == "+"]
    return OmegaConf.merge(changed, OmegaConf.from_dotlist(added))  # type: ignore[return-value]


def find_checkpoint(cfg: DictConfig) -> Path | None:
    """The checkpoint to resume from; None for a run that starts.

    Raises:
        DistilPoseError: with `resume=auto`, the run's folder holds a run of another configuration.
    """
    if cfg.resume is None:
        return None
    if cfg.resume != AUTO and Path(cfg.resume).is_file():
        return Path(cfg.resume)
    found = _newest(cfg)
    return None if found is None else found.path


def _newest(cfg: DictConfig) -> Found | None:
    """The newest checkpoint of the folder that `resume` is about."""
    return _own_checkpoint(cfg) if cfg.resume == AUTO else newest_intact(Path(cfg.resume))


def finished(cfg: DictConfig) -> dict[str, Any] | None:
    """The metrics.json of the run to resume, if that has reached its end, else None.

    EarlyStopping ends a run for `resume=auto`, which repeats a command, but not for `resume=FOLDER`, which asks for more.
    """
    place = Path(cfg.folder if cfg.resume == AUTO else cfg.resume or "")
    if cfg.resume is None or not (place / SUMMARY).is_file():
        return None
    found = _newest(cfg)
    try:
        metrics = json.loads((place / SUMMARY).read_text())
        steps, epoch = metrics["last"]["step"], int(metrics["last"]["epoch"])
    except (ValueError, KeyError, TypeError):  # damaged: the run resumes from its checkpoint and writes it again
        return None
    if found is None or found.step < steps:  # killed between the table and the checkpoint
        return None
    trainer = own_configuration(cfg).trainer
    limit = trainer.get("max_steps", -1)
    ended = epoch + 1 >= trainer.max_epochs or (limit != -1 and found.step >= limit)
    return metrics if ended or (cfg.resume == AUTO and _stopped_in(found.path) == epoch) else None


def _stopped_in(checkpoint: Path) -> int | None:
    """The epoch in which EarlyStopping last ended the checkpoint's training; None where it never has."""
    states = torch.load(checkpoint, map_location="cpu", weights_only=True, mmap=True).get("callbacks", {})
    epochs = [state["stopped_epoch"] for name, state in states.items() if name.startswith("EarlyStopping")]
    return max(epochs, default=0) or None


def _own_checkpoint(cfg: DictConfig) -> Found | None:
    """The newest checkpoint in the run's own folder, which must be of a run of the same configuration; None without one."""
    place = Path(cfg.folder)
    if not (place / CONFIG).is_file():
        if newest_intact(place) is not None:
            raise DistilPoseError(
                f"'{place}' holds a checkpoint without its {CONFIG}, so resume=auto can neither resume nor start anew: put the "
                "file back, or choose another hydra.run.dir."
            )
        return None
    old, new = (flatten(OmegaConf.to_container(config, resolve=True)) for config in (read_config(place), cfg))
    compared = [key for key in {*old, *_new_settings(old, new)} if not rule_of(key).auto]
    unlike = sorted(key for key in compared if old.get(key) != new.get(key))
    if unlike:
        values = ", ".join(f"{key}={json.dumps(old.get(key), default=str)}" for key in unlike[:3])
        raise DistilPoseError(
            f"'{place}' holds a run of another configuration ({values}{', …' if len(unlike) > 3 else ''}), so resume=auto does "
            f"not resume it: give those values, change single ones by resume='{place}' setting=value, or choose another "
            "hydra.run.dir (hydra.sweep.dir of a sweep)."
        )
    return newest_intact(place)


def _new_settings(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """The dotted keys of new settings that must be equal although the saved configuration has no such key.

    A setting that a later version of this package has added is ignored, unless the command line names it, it fills a
    group that was null, or it belongs to a callback that takes part in the training.
    """
    named: set[str] = set()
    if HydraConfig.initialized():
        hydra = HydraConfig.get()
        named = {word.lstrip("+").split("=")[0] for word in hydra.overrides.task} - set(hydra.runtime.choices)
    training = {name for name, observes in callbacks_of(new).items() if not observes}
    return [key for key in new if is_in(key, [*named, *old, *training])]
