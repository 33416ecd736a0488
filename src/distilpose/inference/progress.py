"""The progress bar of a prediction, and the summary of images that could not be read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn
from rich.text import Text

UNREAD = "unread.txt"  # file with all reasons
_SHOWN_REASONS = 3


class SpeedColumn(ProgressColumn):
    """Mean frames a second, and the time left at that speed.

    rich's TaskProgressColumn is not used because it averages over the last few steps: frames are finished in groups, so it
    would show the speed of writing them. The task's field `known` is the number of frames in the journal, which take no time.
    """

    def render(self, task: Task) -> Text:
        """Such as `12.5/s 0:01:20`."""
        seconds, done = task.finished_time or task.elapsed or 0.0, task.completed - task.fields["known"]
        if done <= 0 or seconds <= 0:
            return Text("")
        speed = done / seconds
        text = f"{speed:.1f}/s"
        if task.remaining:
            minutes, left = divmod(round(task.remaining / speed), 60)
            text += f" {minutes // 60}:{minutes % 60:02d}:{left:02d}"
        return Text(text)


def progress_bar() -> Progress:
    """A progress bar for a task with the field `known`, see `SpeedColumn`."""
    return Progress(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), SpeedColumn())


def plural(number: int, noun: str) -> str:
    """Such as `1 image`, `2 images`."""
    return f"{number} {noun}" + ("" if number == 1 else "s")


def unread_summary(faults: Sequence[str], images: int, output: str | Path) -> str:
    """The error message for images that could not be read, with the first reasons.

    Args:
        faults: one error message for each image that could not be read; at least one.
        images: number of images.
        output: folder with the results of the others.
    """
    if images == 1:
        return faults[0]
    reasons = " ".join(faults[:_SHOWN_REASONS])
    if len(faults) > _SHOWN_REASONS:
        reasons += f" … and {len(faults) - _SHOWN_REASONS} more, see {Path(output) / UNREAD}."
    if len(faults) == images:
        return f"None of the {images} images could be read: {reasons}"
    return f"{len(faults)} of {images} images could not be read and were skipped; the others are in {output}: {reasons}"
