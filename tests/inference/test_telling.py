from __future__ import annotations

import pytest

from distilpose.inference.telling import Pace, counted, progress_bar, unread


@pytest.mark.parametrize(("known", "expected"), [(0, "2.0/s 0:00:30"), (16, "0.4/s 0:02:30")])
def test_the_pace_is_that_of_the_whole_work(known, expected):
    """Twenty frames that come at once after ten seconds are two a second, or less where some were known before."""
    now = [100.0]
    bar = progress_bar()
    bar.get_time = lambda: now[0]
    task = bar.add_task("images", total=80, known=known)
    now[0] += 10
    for _ in range(20):
        bar.advance(task)
        now[0] += 1e-5
    assert str(Pace().render(bar.tasks[0])) == expected
    bar.advance(task, 60)
    now[0] += 1000
    assert "/s" in str(Pace().render(bar.tasks[0]))
    assert str(Pace().render(bar.tasks[0])) == f"{(80 - known) / 10:.1f}/s"


def test_nothing_is_told_of_the_pace_before_anything_is_done():
    bar = progress_bar()
    bar.add_task("frames", total=None, known=0)
    assert str(Pace().render(bar.tasks[0])) == ""


def test_one_and_many():
    assert [counted(number, "image") for number in (0, 1, 2)] == ["0 images", "1 image", "2 images"]


def test_images_that_could_not_be_read():
    faults = [f"{letter} is bad." for letter in "abcde"]
    assert unread(faults[:1], 1, "out") == "a is bad."
    assert unread(faults[:1], 7, "out") == (
        "1 of 7 images could not be read and was passed over, the others are in out: a is bad."
    )
    assert unread(faults, 7, "out").endswith(
        "are in out: a is bad. b is bad. c is bad. … and 2 more, see out/unread.txt."
    )
    assert unread(faults, 5, "out").startswith("None of the 5 images could be read: a is bad.")
