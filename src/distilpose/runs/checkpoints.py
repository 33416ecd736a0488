"""Writes the checkpoints of a run atomically, and finds the one to resume from.

Lightning's writer is not used because a kill can leave a damaged file, and its `ckpt_path="last"` is not used because it
chooses by modification time and does not check whether the file is intact.
"""

from __future__ import annotations

import errno
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

from distilpose.errors import DistilPoseError, first_line
from distilpose.files import atomic_write

log = logging.getLogger(__name__)

# system errors of reading content that is not as it should be, such as a position before the start of the file
DAMAGED = (None, errno.EINVAL)
# saved after the last finished epoch, within an epoch, and after the best epoch (used if the others are damaged)
LAST, RECENT, BEST = "last.ckpt", "recent.ckpt", "best.ckpt"


class CheckpointFiles(TorchCheckpointIO):
    """Lightning's checkpoint writer with an atomic rename.

    Lightning writes to the system's temporary folder. If that is on another disk, it then copies the checkpoint over the
    last good one, and a kill during the copy destroys both.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write a checkpoint.

        Raises:
            DistilPoseError: the disk is full or the folder cannot be written; an earlier file is unchanged.
        """
        content = io.BytesIO()  # torch.save into a file on a full disk aborts the process
        torch.save(checkpoint, content)
        path = Path(path)
        with atomic_write(path) as temporary:
            temporary.write_bytes(content.getbuffer())


class IntactCheckpoint(NamedTuple):
    """An intact checkpoint.

    Attributes:
        path: the file.
        step: number of optimizer steps before it was saved.
    """

    path: Path
    step: int


def newest_intact(folder: Path) -> IntactCheckpoint | None:
    """The checkpoint with the most optimizer steps in a run's folder; None if there is no intact one.

    Modification times are ignored. A damaged checkpoint is skipped with a warning. The best one is used only if the others
    are missing or damaged.
    """
    read = [_read(folder / "checkpoints" / name) for name in (LAST, RECENT)]
    intact = [checkpoint for checkpoint in read if checkpoint is not None]
    if not intact:
        return _read(folder / "checkpoints" / BEST)
    return max(intact, key=lambda checkpoint: checkpoint.step)


def _read(path: Path) -> IntactCheckpoint | None:
    """The checkpoint, if it exists and is intact.

    Raises:
        DistilPoseError: it exists, but the system does not let it be read, which says nothing about its content.
    """
    try:
        state = path.stat()
        return _verify(path, state.st_mtime_ns, state.st_size)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise DistilPoseError(
            f"{path} cannot be read ({error.strerror or error}), and neither an older checkpoint nor a new run is to take its "
            "place: make it readable, or move it away."
        ) from error


@lru_cache(maxsize=16)  # called several times for a resumed run, and the files may be gigabytes
def _verify(path: Path, changed: int, size: int) -> IntactCheckpoint | None:
    """The checkpoint, if the checksums of all its records are right."""
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
        step = None if damaged else torch.load(path, map_location="cpu", weights_only=True, mmap=True)["global_step"]
    except OSError as error:
        if error.errno not in DAMAGED:
            raise
        damaged, step = first_line(error), None
    except (zipfile.BadZipFile, RuntimeError, UnpicklingError, LookupError, TypeError, EOFError) as error:
        damaged, step = first_line(error), None  # the other lines of torch's message explain how to load it unsafely
    if step is None:
        rank_zero_only(log.warning)(f"{path} is damaged ({damaged}) and is skipped.")
        return None
    return IntactCheckpoint(path, int(step))
