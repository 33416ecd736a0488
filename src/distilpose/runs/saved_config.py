"""The configuration in a run's folder: written at each start, and read back with its paths where the folder is now."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from lightning.pytorch.utilities import rank_zero_only
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from distilpose.cli.resolvers import AUTO
from distilpose.errors import DistilPoseError
from distilpose.files import remove_parts, write_text
from distilpose.runs.folders import CONFIG


def read_config(place: Path) -> DictConfig:
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
    """A resolved copy of a configuration, with every path inside one folder moved to another.

    Args:
        config: of a run.
        folder: where the run was.
        place: where it is now.
    """
    # whole paths, not the end of another one; behind a scheme such as sqlite:/// too
    path = re.compile(rf"(?<![^:/=])(?<![^:/]/){re.escape(folder)}(?=/|$)")

    def rebased(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: rebased(entry) for key, entry in value.items()}
        if isinstance(value, list):
            return [rebased(entry) for entry in value]
        return path.sub(lambda _: str(place), value) if isinstance(value, str) else value

    return OmegaConf.create(rebased(OmegaConf.to_container(config, resolve=True)))


@contextmanager
def saved_config(cfg: DictConfig, checkpoint: Path | None = None) -> Iterator[None]:
    """Keep the resolved configuration in the run's folder, which may hold no run other than the checkpoint's.

    Where the block fails before it has saved a checkpoint, the earlier file is restored, so that the same command can
    start again.
    """
    folder = Path(cfg.folder)
    within = checkpoint is not None and checkpoint.resolve().is_relative_to(folder.resolve())
    resumes = within or cfg.resume == AUTO
    before = (folder / CONFIG).read_text() if resumes and (folder / CONFIG).exists() else None
    saved = _checkpoints_in(folder)
    _write_config(cfg, resumes)
    try:
        yield
    except BaseException:
        if _checkpoints_in(folder) == saved:
            _restore_config(folder, before)
        raise


def _checkpoints_in(folder: Path) -> dict[str, tuple[int, int]]:
    """The checkpoints in a run's folder, each with numbers that change when it is written."""
    files = (folder / "checkpoints").glob("*.ckpt")
    return {file.name: (file.stat().st_ino, file.stat().st_mtime_ns) for file in files}


@rank_zero_only
def _write_config(cfg: DictConfig, resumes: bool) -> None:
    place = Path(cfg.folder) / CONFIG
    if place.exists() and not resumes:
        if _checkpoints_in(place.parent):
            raise DistilPoseError(
                f"'{cfg.folder}' already holds a run: resume it by resume={cfg.folder}, or choose another hydra.run.dir."
            )
        raise DistilPoseError(
            f"'{place}' exists without a checkpoint, as after a run that was killed in its first epoch: remove that file, or "
            "choose another hydra.run.dir."
        )
    if resumes:
        remove_parts(place.parent)
    write_text(OmegaConf.to_yaml(cfg, resolve=True), place)


@rank_zero_only
def _restore_config(folder: Path, before: str | None) -> None:
    if before is None:
        (folder / CONFIG).unlink(missing_ok=True)
    else:
        write_text(before, folder / CONFIG)
