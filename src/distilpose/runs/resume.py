"""Going on with a training run: its folder keeps the configuration it was started with."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import yaml
from hydra.core.hydra_config import HydraConfig
from lightning.pytorch.utilities import rank_zero_only
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigKeyError, OmegaConfBaseException

from distilpose.cli.resolvers import AUTO
from distilpose.errors import DistilPoseError
from distilpose.files import remove_parts, write_text
from distilpose.runs.checkpoints import Found, newest_intact
from distilpose.runs.folders import CONFIG, NOT_COMPARED, SUMMARY, callbacks_of, flatten

# of what makes no other run, what all the same changes figures, if only by their last bits, the data or the best checkpoint
FELT = {"seed", "data.seed", "threads", "data.val_batch_size", "data.folder", "data.monitor", "trainer.accelerator"}
# no figure depends on these, which may be others at each start, such as after a loading process ran out of memory
UNFELT = (*sorted({*NOT_COMPARED} - FELT), "callbacks.progress", "trainer.enable_progress_bar", "trainer.profiler")


def resume(cfg: DictConfig) -> tuple[DictConfig, str | None]:
    """The configuration to run and the checkpoint to go on from, if any.

    With `resume=auto` the run goes on with what is in its own folder, if anything is: the same command starts it and takes
    it up again. With `resume=FOLDER` that is the folder's own configuration, changed only by the values on the command
    line, and its newest intact checkpoint. With `resume=FILE` it is the configuration as composed and that checkpoint.
    """
    if cfg.resume is None:
        return cfg, None
    if cfg.resume == AUTO:
        found = _own_checkpoint(cfg)
        return cfg, None if found is None else str(found.path)
    place = Path(cfg.resume)
    if place.is_file():
        return cfg, str(place)
    found = newest_intact(place)
    if found is None or not (place / CONFIG).is_file():
        raise DistilPoseError(
            f"resume={cfg.resume} holds no {CONFIG} with an intact checkpoint: give the folder of a run that has finished at "
            "least one epoch, or a checkpoint file."
        )
    old = _saved_in(place)
    changes = [change for change in HydraConfig.get().overrides.task if not change.startswith("resume=")]
    choices = HydraConfig.get().runtime.choices
    refused = [change for change in changes if change.startswith("~") or change.lstrip("+").split("=")[0] in choices]
    if refused:
        raise DistilPoseError(
            f"A resumed run keeps its configuration but for single values, so {refused} cannot be changed: leave them "
            "out, or start a new run with weights=FILE."
        )
    kept = [change for change in changes if change.lstrip("+").startswith("optimizer.")]
    if kept:
        raise DistilPoseError(
            f"A resumed run keeps its optimizer's state, rate included, so {kept} would change nothing: leave them out, or "
            "start a new run with weights=FILE."
        )
    added = [change.lstrip("+") for change in changes if change.startswith("+")]
    OmegaConf.set_struct(old, True)
    try:
        changed = OmegaConf.merge(old, OmegaConf.from_dotlist([change for change in changes if change[0] != "+"]))
    except ConfigKeyError as error:
        raise DistilPoseError(
            f"The run in {cfg.resume} has no setting {error.full_key}: see its {CONFIG}, or add it by +{error.full_key}=…"
        ) from error
    OmegaConf.set_struct(changed, False)
    return OmegaConf.merge(changed, OmegaConf.from_dotlist(added)), str(found.path)  # type: ignore[return-value]


def finished(cfg: DictConfig) -> dict[str, Any] | None:
    """The metrics.json of the run to go on with, if that has run to its end, else None.

    With `resume=FOLDER` EarlyStopping's end is none: the run is asked for by name.
    """
    auto = cfg.resume == AUTO
    place = Path(cfg.folder if auto else cfg.resume or "")
    if cfg.resume is None or not (place / SUMMARY).is_file():
        return None
    found = _own_checkpoint(cfg) if auto else newest_intact(place)
    trainer = (cfg if auto or found is None else resume(cfg)[0]).trainer
    try:
        metrics = json.loads((place / SUMMARY).read_text())
        steps, epoch = metrics["last"]["step"], int(metrics["last"]["epoch"])
    except (ValueError, KeyError, TypeError):  # a damaged one; the run goes on from its checkpoint and writes it anew
        return None
    # of a run that was killed between the two, the checkpoint has taken fewer
    if found is None or found.step < steps:
        return None
    limit = trainer.get("max_steps", -1)
    over = epoch + 1 >= trainer.max_epochs or (limit != -1 and found.step >= limit)
    return metrics if over or (auto and _stopped_in(found.path) == epoch) else None


def _stopped_in(checkpoint: Path) -> int | None:
    """The epoch in which EarlyStopping last ended the checkpoint's training; None where it never has."""
    states = torch.load(checkpoint, map_location="cpu", weights_only=True, mmap=True).get("callbacks", {})
    epochs = [state["stopped_epoch"] for name, state in states.items() if name.startswith("EarlyStopping")]
    return max(epochs, default=0) or None


def _own_checkpoint(cfg: DictConfig) -> Found | None:
    """The newest checkpoint in the run's own folder, which must be a run of the same configuration; None without one."""
    place = Path(cfg.folder)
    if not (place / CONFIG).is_file():
        if newest_intact(place) is not None:
            raise DistilPoseError(
                f"'{place}' holds a run's checkpoint without its {CONFIG}, so resume=auto can neither go on with it nor begin "
                "anew over it: put the file back, or choose another hydra.run.dir."
            )
        return None
    old, new = (flatten(OmegaConf.to_container(config, resolve=True)) for config in (_saved_in(place), cfg))
    unfelt = tuple(f"{name}." for name in UNFELT)
    compared = [key for key in {*old, *_new_settings(old, new)} if not f"{key}.".startswith(unfelt)]
    unlike = sorted(key for key in compared if old.get(key) != new.get(key))
    if unlike:
        told = ", ".join(f"{key}={json.dumps(old.get(key), default=str)}" for key in unlike[:3])
        raise DistilPoseError(
            f"'{place}' holds a run of another configuration ({told}{', …' if len(unlike) > 3 else ''}), so resume=auto does "
            f"not go on with it: give those values, go on with single ones changed by resume='{place}' setting=value, or "
            "choose another hydra.run.dir (hydra.sweep.dir of a sweep)."
        )
    return newest_intact(place)


def _new_settings(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """The dotted keys of new settings that a run which was started without them differs by.

    One that a later version brought in has no say, unless it is asked for by name, fills what was left empty, or belongs to
    a callback that takes part in the training.
    """
    asked: set[str] = set()
    if HydraConfig.initialized():
        hydra = HydraConfig.get()
        asked = {word.lstrip("+").split("=")[0] for word in hydra.overrides.task} - set(hydra.runtime.choices)
    training = {name for name, watches in callbacks_of(new).items() if not watches}
    parents = tuple(f"{name}." for name in (*asked, *old, *training))
    return [key for key in new if f"{key}.".startswith(parents)]


def _saved_in(place: Path) -> DictConfig:
    """The configuration saved in a run's folder, with its paths in the folder as it is now."""
    try:
        config: Any = OmegaConf.create((place / CONFIG).read_text())
        folder = str(config.folder)
    except (yaml.YAMLError, OmegaConfBaseException, AttributeError, UnicodeDecodeError) as error:
        raise DistilPoseError(
            f"'{place / CONFIG}' is no configuration of a run ({' '.join(str(error).split())}): put it back, or start a new "
            "run in another folder."
        ) from error
    return rebase_paths(config, folder, place.resolve())


def rebase_paths(config: DictConfig, folder: str, place: Path) -> DictConfig:
    """A configuration, resolved, with its paths in another folder.

    Args:
        config: of a run.
        folder: where the run lay.
        place: where it lies now.

    Returns:
        A copy, every path of the first folder in the second.
    """
    # whole paths, not what ends another one, behind a scheme such as sqlite:/// too
    path = re.compile(rf"(?<![^:/=])(?<![^:/]/){re.escape(folder)}(?=/|$)")

    def there(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: there(entry) for key, entry in value.items()}
        if isinstance(value, list):
            return [there(entry) for entry in value]
        return path.sub(lambda _: str(place), value) if isinstance(value, str) else value

    return OmegaConf.create(there(OmegaConf.to_container(config, resolve=True)))


@contextmanager
def saved_config(cfg: DictConfig, checkpoint: str | None = None) -> Iterator[None]:
    """The resolved configuration in the run's folder, which may hold no run other than the checkpoint's.

    Where the block fails before it has saved a checkpoint, what was there before is put back, so that the same command runs
    again.
    """
    folder = Path(cfg.folder)
    within = checkpoint is not None and Path(checkpoint).resolve().is_relative_to(folder.resolve())
    goes_on = within or cfg.resume == AUTO
    before = (folder / CONFIG).read_text() if goes_on and (folder / CONFIG).exists() else None
    saved = _saved(folder)
    _write_config(cfg, goes_on)
    try:
        yield
    except BaseException:
        if _saved(folder) == saved:
            _take_config_back(folder, before)
        raise


def _saved(folder: Path) -> dict[str, tuple[int, int]]:
    """The checkpoints in a run's folder, each with numbers that change when it is written."""
    files = (folder / "checkpoints").glob("*.ckpt")
    return {file.name: (file.stat().st_ino, file.stat().st_mtime_ns) for file in files}


@rank_zero_only
def _write_config(cfg: DictConfig, goes_on: bool) -> None:
    place = Path(cfg.folder) / CONFIG
    if place.exists() and not goes_on and not _saved(place.parent):
        raise DistilPoseError(
            f"'{place}' is there but no checkpoint, as after a run that was killed in its first epoch: remove that file, or "
            "choose another hydra.run.dir."
        )
    if place.exists() and not goes_on:
        raise DistilPoseError(
            f"'{cfg.folder}' already holds a run: go on with it by resume={cfg.folder}, or choose another hydra.run.dir."
        )
    if goes_on:
        remove_parts(place.parent)
    write_text(OmegaConf.to_yaml(cfg, resolve=True), place)


@rank_zero_only
def _take_config_back(folder: Path, before: str | None) -> None:
    if before is None:
        (folder / CONFIG).unlink(missing_ok=True)
    else:
        write_text(before, folder / CONFIG)
