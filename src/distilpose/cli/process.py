"""A command as a process: how it starts sooner, and how it ends when nobody listens any more."""

from __future__ import annotations

import atexit
import gc
import os
import sys
from importlib.util import find_spec


def pause_collector() -> None:
    """Stop Python's collector of cycles, if a module of ours is about to run as a command (`python -m distilpose.train`).

    While torch and Lightning are imported a million objects are made that stay; looking through them again and again takes a
    sixth of the time of a command without work.
    """
    if _starting() is not None:
        gc.disable()


def _starting() -> str | None:
    """The module of ours that Python is about to run as a command, while it looks for it."""
    # "-m" is Python's word for a module that it looks for, which may be another package's that imports this one
    given = sys.orig_argv[: -len(sys.argv[1:]) or None]
    return given[-1] if sys.argv[:1] == ["-m"] and given[-1].startswith("distilpose.") else None


def refuse_without_torch() -> None:
    """End a command that cannot work where only what `distilpose.runtime` needs is installed."""
    name = _starting()
    if name not in (None, "distilpose.runtime") and find_spec("torch") is None:
        sys.exit(
            f"error: {name} needs PyTorch and what else distilpose depends on, which is not installed: pip install distilpose; "
            "python -m distilpose.runtime works without."
        )


def resume_collector() -> None:
    """Start it again, for what is made from now on; a command's first step. Without a pause nothing changes."""
    if not gc.isenabled():
        gc.freeze()
        atexit.register(gc.unfreeze)  # at the end all goes: Triton's binding complains of what is left
        gc.enable()


def silence_stdout() -> None:
    """Say no more: the reader of our output, such as `head`, has what it wanted."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
