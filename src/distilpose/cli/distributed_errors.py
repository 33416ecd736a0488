"""Translates torch's errors about a dead worker or a dead process into a `DistilPoseError`.

The same words in another library's error, such as a reset connection to a server, mean something else.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from distilpose.errors import DistilPoseError

RESUME = "the same command with resume=auto resumes from the last checkpoint."
LOST = f"Another process of this training has died ({{}}): see its own error message; {RESUME}"
WORKER = (
    "A DataLoader worker died ({}), most often because memory or shared memory ran out: lower data.num_workers or free some "
    f"memory; {RESUME}"
)
# start of torch's message about a worker, which has no exception type
DEAD_WORKER = "DataLoader worker (pid"
# parts of the messages of process groups about a lost process
LOST_PROCESS = (
    "Connection closed by peer",
    "Connection reset by peer",
    "ncclRemoteError",
    "NCCL communicator was aborted",
    "Watchdog caught collective operation timeout",
)


class LostProcessError(DistilPoseError):
    """A worker or another process of the training has died; its cause has the stack trace."""


@contextmanager
def translate_distributed_errors() -> Iterator[None]:
    """Raise a `LostProcessError` for a dead worker or a dead process of the training; leave other errors as they are."""
    try:
        yield
    except RuntimeError as error:
        text = " ".join(str(error).split())
        if text.startswith(DEAD_WORKER):
            raise LostProcessError(WORKER.format(_first_clause(text))) from error
        if _is_of_a_process_group(error, text) and any(part in text for part in LOST_PROCESS):
            raise LostProcessError(LOST.format(_first_clause(text))) from error
        raise


def _is_of_a_process_group(error: RuntimeError, text: str) -> bool:
    """Whether torch.distributed raised an error: one of its types, or gloo's plain ones, which begin with its source file."""
    distributed = sys.modules.get("torch.distributed")
    if distributed is None or not distributed.is_available():
        return False
    if isinstance(error, distributed.DistError):
        return True
    return distributed.is_initialized() and text.startswith("[") and "gloo/" in text.partition("]")[0]


def _first_clause(text: str) -> str:
    """The first clause of a long message, without the source file at the start of some messages."""
    text = text.rpartition("] ")[2] if text.startswith("[") else text
    return text.partition(". ")[0].rstrip(".")
