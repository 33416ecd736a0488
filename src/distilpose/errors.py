"""The exception type for user errors."""

from __future__ import annotations


class DistilPoseError(ValueError):
    """A user error in a setting, a file or a call.

    The message is one sentence that names the value, what is expected and what to do. A command prints it without a stack
    trace and exits with status 1 (`distilpose.cli.command`). Other code can catch it as a `ValueError`.
    """


def first_line(error: BaseException) -> str:
    """First line of an error message, without the explanations that some libraries add; the error's type if it is empty."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
