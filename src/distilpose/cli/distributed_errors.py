"""Translates torch's errors about a dead worker or a dead process into a `DistilPoseError`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from distilpose.errors import DistilPoseError

RESUME = "the same command with resume=auto resumes from the last checkpoint."
LOST = f"Another process of this training has died ({{}}): see its own error message; {RESUME}"
# parts of torch's messages (torch has no exception types for them), and our message for each
ERRORS = {
    "DataLoader worker (pid": "A DataLoader worker died ({}), most often because memory or shared memory ran out: lower "
    f"data.num_workers or free some memory; {RESUME}",
    "Connection closed by peer": LOST,
    "Connection reset by peer": LOST,
    "ncclRemoteError": LOST,
    "NCCL communicator was aborted": LOST,
    "Watchdog caught collective operation timeout": LOST,
}


@contextmanager
def translate_distributed_errors() -> Iterator[None]:
    """Raise a `DistilPoseError` for a dead worker or a dead process of the training; leave other errors as they are."""
    try:
        yield
    except RuntimeError as error:
        text = " ".join(str(error).split())
        for part, message in ERRORS.items():
            if part in text:
                raise DistilPoseError(message.format(_first_clause(text))) from error
        raise


def _first_clause(text: str) -> str:
    """The first clause of a long message, without the source file at the start of some messages."""
    text = text.rpartition("] ")[2] if text.startswith("[") else text
    return text.partition(". ")[0].rstrip(".")
