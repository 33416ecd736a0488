"""Lets only one process work in a folder, with filelock: the system releases the lock when its process dies."""

from __future__ import annotations

import contextlib
import logging
import math
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from distilpose.errors import DistilPoseError

log = logging.getLogger(__name__)


@contextlib.contextmanager
def held(file: Path, wait: float = math.inf) -> Iterator[None]:
    """Hold a lock inside the block.

    The lock also works between machines if their shared disk supports locks, as NFS does. A disk without locks is used
    without one.

    Args:
        file: the lock file; it is created, and removed at the end.
        wait: seconds to wait for another process; by default, until that process ends.

    Raises:
        DistilPoseError: another process still holds the lock.
    """
    lock = FileLock(file)
    file.parent.mkdir(parents=True, exist_ok=True)
    try:
        try:
            lock.acquire(blocking=False)
        except Timeout:
            if wait == math.inf:
                log.info("Another process works in '%s': waiting until it ends.", file.parent)
            lock.acquire(timeout=-1 if wait == math.inf else wait, poll_interval=0.5)
    except Timeout:
        raise DistilPoseError(
            f"Another process works in '{file.parent}': wait until it ends, stop it, or choose another folder."
        ) from None
    except (OSError, NotImplementedError):
        log.debug("'%s' is on a disk without locks.", file)
    try:
        yield
    finally:
        with contextlib.suppress(
            OSError
        ):  # the disk may have failed; the error inside the block must be the one reported
            if lock.is_locked:
                file.unlink()  # before the release, so that no other process holds the removed file
            lock.release()
