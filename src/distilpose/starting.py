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
    if sys.argv[:1] == ["-m"]:  # which is Python's word for it while it looks for the module
        gc.disable()


def resume_collector() -> None:
    """Start it again, for what is made from now on; a command's first step. Without a pause nothing changes."""
    if not gc.isenabled():
        gc.freeze()
        atexit.register(gc.unfreeze)  # at the end all goes: Triton's binding complains of what is left
        gc.enable()
