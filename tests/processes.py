"""Run the train command as a subprocess."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def start(folder: Path, *arguments: object) -> subprocess.Popen[str]:
    """Start the command in a folder."""
    return subprocess.Popen(
        [sys.executable, "-m", "distilpose.train", *map(str, arguments)],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    """Wait until it ends; return its exit status, standard output and standard error."""
    out, err = process.communicate(timeout=600)
    return process.returncode, out, err
