"""What a prediction tells of itself: a bar while it works, and sentences at its end."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn
from rich.text import Text

UNREAD = "unread.txt"  # where all reasons stand
_REASONS = 3


class Pace(ProgressColumn):
    """Frames a second of the whole work, and the time left at that pace.

    Frames come in groups that are done at once, so that rich's own speed, over the last few, would be that of writing them.
    The task's field `known` tells how many were found by an earlier work and take no time.
    """

    def render(self, task: Task) -> Text:
        """Such as `12.5/s 0:01:20`."""
        seconds, done = task.finished_time or task.elapsed or 0.0, task.completed - task.fields["known"]
        if done <= 0 or seconds <= 0:
            return Text("")
        pace = done / seconds
        text = f"{pace:.1f}/s"
        if task.remaining:
            minutes, left = divmod(round(task.remaining / pace), 60)
            text += f" {minutes // 60}:{minutes % 60:02d}:{left:02d}"
        return Text(text)


def progress_bar() -> Progress:
    """A bar for a task with the field `known`, see `Pace`."""
    return Progress(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), Pace())


def counted(number: int, what: str) -> str:
    """Such as `1 image`, `2 images`."""
    return f"{number} {what}" + ("" if number == 1 else "s")


def unread(faults: Sequence[str], images: int, output: str) -> str:
    """That images could not be read, and the first reasons.

    Args:
        faults: a sentence for each image that could not be read; at least one.
        images: how many there were.
        output: where what was found in the others is.
    """
    if images == 1:
        return faults[0]
    reasons = " ".join(faults[:_REASONS])
    if len(faults) > _REASONS:
        reasons += f" … and {len(faults) - _REASONS} more, see {Path(output) / UNREAD}."
    if len(faults) == images:
        return f"None of the {images} images could be read: {reasons}"
    were = "was" if len(faults) == 1 else "were"
    return f"{len(faults)} of {images} images could not be read and {were} passed over, the others are in {output}: {reasons}"
