"""One process at a time in a folder: filelock's lock, which the system releases when its holder dies."""

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
def held(file: Path, wait: float = math.inf) -> Iterator[bool]:
    """Hold a lock inside the block; gives whether another process held it before.

    Processes on other machines count where their shared disk supports locks, as NFS does; other disks are not locked.

    Args:
        file: of the lock; created, and removed at the end.
        wait: seconds to wait for another process; by default until it ends.

    Raises:
        DistilPoseError: another process still holds the lock.
    """
    lock, waited = FileLock(file), False
    file.parent.mkdir(parents=True, exist_ok=True)
    try:
        try:
            lock.acquire(blocking=False)
        except Timeout:
            waited = True
            if wait == math.inf:
                log.info("Another process works in '%s': waiting for its end.", file.parent)
            lock.acquire(timeout=-1 if wait == math.inf else wait, poll_interval=0.5)
    except Timeout:
        raise DistilPoseError(
            f"Another process works in '{file.parent}': wait until it ends, stop it, or choose another folder."
        ) from None
    except (OSError, NotImplementedError):
        log.debug("'%s' is on a disk without locks.", file)
    try:
        yield waited
    finally:
        with contextlib.suppress(OSError):  # a disk that has gone: the error inside the block is what to report
            if lock.is_locked:
                file.unlink()  # while it is held, so that nobody else can hold it
            lock.release()
