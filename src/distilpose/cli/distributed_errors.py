"""What goes wrong around a run rather than in it, told in a sentence."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from distilpose.errors import DistilPoseError

GO_ON = "the same command with resume=auto goes on from the last checkpoint."
LOST = f"Another process of this training has gone ({{}}): see what it said; {GO_ON}"
# words of torch's long message, and what to say
FAULTS = {
    "DataLoader worker (pid": "A process that loads data died ({}), most often because memory or shared memory ran out: lower "
    f"data.num_workers or free some; {GO_ON}",
    "Connection closed by peer": LOST,
    "Connection reset by peer": LOST,
    "ncclRemoteError": LOST,
    "NCCL communicator was aborted": LOST,
    "Watchdog caught collective operation timeout": LOST,
}


@contextmanager
def translate_distributed_errors() -> Iterator[None]:
    """A dead loading process, or another training process that has gone, as a `DistilPoseError`; other errors as they are."""
    try:
        yield
    except RuntimeError as error:
        told = " ".join(str(error).split())
        for words, sentence in FAULTS.items():
            if words in told:
                raise DistilPoseError(sentence.format(_gist(told))) from error
        raise


def _gist(told: str) -> str:
    """The first clause of a long message, without the file it was raised in."""
    told = told.rpartition("] ")[2] if told.startswith("[") else told
    return told.partition(". ")[0].rstrip(".")
