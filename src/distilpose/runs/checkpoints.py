"""Checkpoints of a run: written whole or not at all, and which of them to go on from."""

from __future__ import annotations

import io
import sys
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

# of the last finished epoch, of the middle of one, and, should both be damaged, of the best epoch
LAST, RECENT, BEST = "last.ckpt", "recent.ckpt", "best.ckpt"


class CheckpointFiles(TorchCheckpointIO):
    """Lightning's writer of checkpoints, through a file beside the one wanted.

    Lightning's own writes into the system's folder for temporary files: where that is another disk, a checkpoint is copied
    over the last good one, and a kill in the middle of it leaves neither.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write a checkpoint.

        Raises:
            DistilPoseError: the disk is full or the folder cannot be written; what was there before is left as it was.
        """
        content = io.BytesIO()  # torch.save into a file on a full disk aborts the process
        torch.save(checkpoint, content)
        path = Path(path)
        with atomic_write(path) as temporary:
            temporary.write_bytes(content.getbuffer())


class Found(NamedTuple):
    """A checkpoint that is whole.

    Attributes:
        path: its file.
        step: optimiser steps it has taken.
    """

    path: Path
    step: int


def newest_intact(folder: Path) -> Found | None:
    """The checkpoint of a run's folder that has gone furthest, by its own count and not by the clock; None without any.

    One that is cut off or otherwise damaged is passed over with a word. The best one is taken only where no other is left.
    """
    found = [_read(folder / "checkpoints" / name) for name in (LAST, RECENT)]
    whole = [one for one in found if one is not None] or [
        one for one in [_read(folder / "checkpoints" / BEST)] if one is not None
    ]
    return max(whole, key=lambda one: one.step) if whole else None


def _read(path: Path) -> Found | None:
    """The checkpoint if it is there and whole."""
    try:
        state = path.stat()
    except OSError:
        return None
    return _checked(path, state.st_mtime_ns, state.st_size)


@lru_cache(maxsize=16)  # a run that goes on is asked about twice, and its files may be gigabytes
def _checked(path: Path, changed: int, size: int) -> Found | None:
    """The checkpoint if it is whole: each record's checksum is compared."""
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
        step = None if damaged else torch.load(path, map_location="cpu", weights_only=True, mmap=True)["global_step"]
    except (zipfile.BadZipFile, RuntimeError, UnpicklingError, LookupError, TypeError, EOFError, OSError) as error:
        damaged, step = first_line(error), None  # torch's goes on with how to load it unsafely
    if step is None:
        rank_zero_only(print)(f"{path} is damaged ({damaged}) and passed over.", file=sys.stderr)
        return None
    return Found(path, int(step))
