"""Writes the configuration into the run's folder at each start, and reads it back with paths adapted to a moved folder."""

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


def read_config(run: Path) -> DictConfig:
    """The configuration saved in a run's folder; paths inside that folder are adapted if it was moved."""
    try:
        config: Any = OmegaConf.create((run / CONFIG).read_text())
        folder = str(config.folder)
    except (yaml.YAMLError, OmegaConfBaseException, AttributeError, UnicodeDecodeError) as error:
        raise DistilPoseError(
            f"'{run / CONFIG}' is not the configuration of a run ({' '.join(str(error).split())}): put it back, or start a new "
            "run in another folder."
        ) from error
    return rebase_paths(config, folder, run.resolve())


def rebase_paths(config: DictConfig, old: str, new: Path) -> DictConfig:
    """A resolved copy of a configuration, with every path inside one folder moved to another.

    Args:
        config: configuration of a run.
        old: folder in the configuration.
        new: folder that replaces it.
    """
    # matches complete paths, not the end of a longer one, also after a scheme such as sqlite:///
    path = re.compile(rf"(?<![^:/=])(?<![^:/]/){re.escape(old)}(?=/|$)")

    def rebased(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: rebased(entry) for key, entry in value.items()}
        if isinstance(value, list):
            return [rebased(entry) for entry in value]
        return path.sub(lambda _: str(new), value) if isinstance(value, str) else value

    return OmegaConf.create(rebased(OmegaConf.to_container(config, resolve=True)))


@contextmanager
def saved_config(cfg: DictConfig, checkpoint: Path | None = None) -> Iterator[None]:
    """Write the resolved configuration into the run's folder.

    If the block fails before it saves a checkpoint, the previous file is restored, so that the same command can start
    again.

    Args:
        cfg: configuration of the run.
        checkpoint: the one to resume from.

    Raises:
        DistilPoseError: the folder already holds a run, and the checkpoint is not from that run.
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
    """The checkpoints in a run's folder, with their inode and modification time, which change at each save."""
    files = (folder / "checkpoints").glob("*.ckpt")
    return {file.name: (file.stat().st_ino, file.stat().st_mtime_ns) for file in files}


@rank_zero_only
def _write_config(cfg: DictConfig, resumes: bool) -> None:
    file = Path(cfg.folder) / CONFIG
    if file.exists() and not resumes:
        way = f"resume it by resume={cfg.folder}" if _checkpoints_in(file.parent) else f"remove {file}"
        raise DistilPoseError(f"'{cfg.folder}' already holds a run: {way}, or choose another hydra.run.dir.")
    if resumes:
        remove_parts(file.parent)
    write_text(OmegaConf.to_yaml(cfg, resolve=True), file)


@rank_zero_only
def _restore_config(folder: Path, before: str | None) -> None:
    if before is None:
        (folder / CONFIG).unlink(missing_ok=True)
    else:
        write_text(before, folder / CONFIG)
