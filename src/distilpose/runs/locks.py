"""One process at a time: a lock that the system takes back when its holder dies, however it dies."""

from __future__ import annotations

import contextlib
import fcntl
import math
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from distilpose.errors import DistilPoseError


@contextlib.contextmanager
def held(file: Path, wait: float = math.inf) -> Iterator[bool]:
    """Hold a lock file inside the block; gives whether another process held it before.

    Processes on other machines count where their shared disk passes locks on, as NFS does; a disk without locks has none.

    Args:
        file: made if it is not there, and removed at the end.
        wait: seconds until the other's hold is an error.

    Raises:
        DistilPoseError: another process holds it still.
    """
    began, waited = time.monotonic(), False
    file.parent.mkdir(parents=True, exist_ok=True)
    while True:
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_at(descriptor, file):
                break
        except BlockingIOError:
            if time.monotonic() - began > wait:
                os.close(descriptor)
                raise DistilPoseError(
                    f"Another process is at work in '{file.parent}': wait until it ends, stop it, or choose another folder."
                ) from None
            if not waited and wait == math.inf:
                print(f"Another process is at work in '{file.parent}': this one waits for its end.", file=sys.stderr)
            waited = True
            time.sleep(0.5)
        except OSError:
            break  # a disk without locks
        os.close(descriptor)
    try:
        yield waited
    finally:
        with contextlib.suppress(OSError):  # of a disk that has gone: what went wrong inside is what to tell
            if _is_at(descriptor, file):
                file.unlink()
        os.close(descriptor)


def _is_at(descriptor: int, file: Path) -> bool:
    """Whether the open file is still the one of that name: its last holder may have removed it."""
    try:
        return os.fstat(descriptor).st_ino == file.stat().st_ino
    except FileNotFoundError:
        return False
