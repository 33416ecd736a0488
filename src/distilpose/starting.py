"""Commands start sooner: Python's collector of cycles waits until the libraries are loaded, and passes these over after that.

While torch and Lightning are imported a million objects are made that stay; looking through them again and again takes a sixth
of the time of a command without work.
"""

from __future__ import annotations

import atexit
import gc
import sys


def pause_collector() -> None:
    """Stop it, if Python is about to run one of our modules as a command (`python -m distilpose.train`)."""
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
