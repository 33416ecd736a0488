"""Waits until W&B's offline files are complete."""

from __future__ import annotations

import time
from pathlib import Path

from wandb_offline import find_logged, read_logged


def closed_file(folder: Path) -> Path:
    """The only .wandb file in a folder; W&B's service may still write to it for a moment after the run has ended."""
    (file,) = find_logged(folder)
    deadline = time.monotonic() + 30
    while read_logged(file).exit_code is None and time.monotonic() < deadline:
        time.sleep(0.05)
    return file
