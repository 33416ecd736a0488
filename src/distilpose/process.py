"""A command as a process: how it starts sooner, and how it ends when nobody listens any more."""

from __future__ import annotations

import atexit
import gc
import os
import sys


def pause_collector() -> None:
    """Stop Python's collector of cycles, if a module of ours is about to run as a command (`python -m distilpose.train`).

    While torch and Lightning are imported a million objects are made that stay; looking through them again and again takes a
    sixth of the time of a command without work.
    """
    # "-m" is Python's word for a module that it looks for, which may be another package's that imports this one
    given = sys.orig_argv[: -len(sys.argv[1:]) or None]
    if sys.argv[:1] == ["-m"] and given[-1].startswith("distilpose."):
        gc.disable()


def resume_collector() -> None:
    """Start it again, for what is made from now on; a command's first step. Without a pause nothing changes."""
    if not gc.isenabled():
        gc.freeze()
        atexit.register(gc.unfreeze)  # at the end all goes: Triton's binding complains of what is left
        gc.enable()


def stop_talking() -> None:
    """Say no more: the reader of our output, such as `head`, has what it wanted."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
