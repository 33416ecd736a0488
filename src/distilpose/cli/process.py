"""Standard output and standard error of a command."""

from __future__ import annotations

import logging
import os
import select
import sys

# environment variables that hold the rank of a process, as Lightning reads them
RANKS = ("RANK", "LOCAL_RANK", "SLURM_PROCID", "JSM_NAMESPACE_RANK")
# python -m distilpose.train runs its module under the name __main__
LOGGERS = ("distilpose", "__main__")


class StderrHandler(logging.Handler):
    """Writes messages to the current `sys.stderr`, so that a later redirection takes effect."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one message."""
        print(self.format(record), file=sys.stderr, flush=True)


def log_to_stderr() -> None:
    """Print the package's log messages as plain text: all in the first process of a training, warnings in the others."""
    rank = next((os.environ[name] for name in RANKS if name in os.environ), "0")
    for logger in map(logging.getLogger, LOGGERS):
        if not any(isinstance(handler, StderrHandler) for handler in logger.handlers):
            logger.addHandler(StderrHandler())
        logger.setLevel(logging.INFO if rank == "0" else logging.WARNING)
    for name, child in logging.root.manager.loggerDict.items():  # Hydra disables all loggers, to silence libraries
        if name.startswith(LOGGERS) and isinstance(child, logging.Logger):
            child.disabled = False


def stdout_is_closed() -> bool:
    """Whether the reader of standard output is gone; a broken pipe to something else, such as a worker, is an error."""
    try:
        poll = select.poll()
        poll.register(sys.stdout.fileno(), 0)  # reports closed pipes only
        return any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))
    except (AttributeError, OSError, ValueError):  # no such call on Windows; no file behind a replaced standard output
        return os.name == "nt"


def silence_stdout() -> None:
    """Discard all further output. Called when the reader of a pipe, such as `head`, has closed it."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
