"""Checkpoints of a run: writes them whole or not at all, and chooses the one to resume from.

Ours, as Lightning's writer can leave a damaged file, and its `ckpt_path="last"` goes by the files' times and checks none.
"""

from __future__ import annotations

import io
import logging
import zipfile
from functools import lru_cache
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, NamedTuple

import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO
from lightning.pytorch.utilities import rank_zero_only

from distilpose.errors import first_line
from distilpose.files import atomic_write

log = logging.getLogger(__name__)

# after the last finished epoch, within an epoch, and, should both be damaged, after the best epoch
LAST, RECENT, BEST = "last.ckpt", "recent.ckpt", "best.ckpt"


class CheckpointFiles(TorchCheckpointIO):
    """Lightning's writer of checkpoints, with an atomic rename.

    Lightning's own writes to the system's folder for temporary files. Where that is another disk, the checkpoint is then
    copied over the last good one, and a kill during the copy leaves neither.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write a checkpoint.

        Raises:
            DistilPoseError: the disk is full or the folder cannot be written; an earlier file stays.
        """
        content = io.BytesIO()  # torch.save into a file on a full disk aborts the process
        torch.save(checkpoint, content)
        path = Path(path)
        with atomic_write(path) as temporary:
            temporary.write_bytes(content.getbuffer())


class Found(NamedTuple):
    """An intact checkpoint.

    Attributes:
        path: its file.
        step: optimizer steps it has taken.
    """

    path: Path
    step: int


def newest_intact(folder: Path) -> Found | None:
    """The checkpoint with the most steps in a run's folder, by its own count and not by the clock; None without any.

    One that is truncated or otherwise damaged is skipped with a warning. The best one is taken only where no other is left.
    """
    found = [_read(folder / "checkpoints" / name) for name in (LAST, RECENT)]
    intact = [checkpoint for checkpoint in found if checkpoint is not None]
    if not intact:
        return _read(folder / "checkpoints" / BEST)
    return max(intact, key=lambda checkpoint: checkpoint.step)


def _read(path: Path) -> Found | None:
    """The checkpoint, if it exists and is intact."""
    try:
        state = path.stat()
    except OSError:
        return None
    return _checked(path, state.st_mtime_ns, state.st_size)


@lru_cache(maxsize=16)  # a resumed run is looked up several times, and its files may be gigabytes
def _checked(path: Path, changed: int, size: int) -> Found | None:
    """The checkpoint, if the checksum of each of its records is right."""
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
        step = None if damaged else torch.load(path, map_location="cpu", weights_only=True, mmap=True)["global_step"]
    except (zipfile.BadZipFile, RuntimeError, UnpicklingError, LookupError, TypeError, EOFError, OSError) as error:
        damaged, step = first_line(error), None  # torch's message then says how to load it unsafely
    if step is None:
        rank_zero_only(log.warning)(f"{path} is damaged ({damaged}) and is skipped.")
        return None
    return Found(path, int(step))
