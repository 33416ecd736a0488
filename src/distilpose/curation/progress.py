"""Progress of a long loop."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

from rich.console import Console
from rich.progress import track

T = TypeVar("T")


def show_progress(jobs: Iterable[T], count: int, what: str) -> Iterable[T]:
    """Iterate with a progress bar on stderr, so that stdout can be piped; no bar if stderr is not a terminal."""
    console = Console(stderr=True)
    return track(jobs, what, count, console=console, transient=True, disable=not console.is_terminal)
