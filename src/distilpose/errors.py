"""The exception type for user errors, and the system errors that are never one."""

from __future__ import annotations

import errno

TOO_MANY_FILES = (errno.EMFILE, errno.ENFILE)
# system errors that may name a path, and would happen to any other: a reader or writer of a file passes them on
NOT_THE_PATH = (*TOO_MANY_FILES, errno.ENOMEM)


class DistilPoseError(ValueError):
    """A user error in a setting, a file or a call.

    The message is one sentence that names the value, what is expected and what to do. A command prints it without a stack
    trace and exits with status 1 (`distilpose.cli.command`). Other code can catch it as a `ValueError`.
    """


def first_line(error: BaseException) -> str:
    """First line of an error message, without the explanations that some libraries add; the error's type if it is empty."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
