from __future__ import annotations

import pytest

from distilpose.inference.progress import SpeedColumn, plural, progress_bar, unread_summary


@pytest.mark.parametrize(("known", "expected"), [(0, "2.0/s 0:00:30"), (16, "0.4/s 0:02:30")])
def test_the_speed_is_that_of_all_frames(known, expected):
    """Twenty frames finished at once after ten seconds are two a second, or fewer if some were known before."""
    now = [100.0]
    bar = progress_bar()
    bar.get_time = lambda: now[0]
    task = bar.add_task("images", total=80, known=known)
    now[0] += 10
    for _ in range(20):
        bar.advance(task)
        now[0] += 1e-5
    assert str(SpeedColumn().render(bar.tasks[0])) == expected
    bar.advance(task, 60)
    now[0] += 1000
    assert "/s" in str(SpeedColumn().render(bar.tasks[0]))
    assert str(SpeedColumn().render(bar.tasks[0])) == f"{(80 - known) / 10:.1f}/s"


def test_no_speed_before_the_first_frame():
    bar = progress_bar()
    bar.add_task("frames", total=None, known=0)
    assert str(SpeedColumn().render(bar.tasks[0])) == ""


def test_one_and_many():
    assert [plural(number, "image") for number in (0, 1, 2)] == ["0 images", "1 image", "2 images"]


@pytest.mark.parametrize(
    ("faults", "images", "expected"),
    [
        ("a", 1, ["a is bad."]),
        ("a", 7, ["1 of 7", "a is bad.", "are in out"]),
        ("abcde", 7, ["5 of 7", "a is bad. b is bad. c is bad.", "2 more", "out/unread.txt"]),
        ("abcde", 5, ["None of the 5", "a is bad."]),
    ],
)
def test_images_that_could_not_be_read(faults, images, expected):
    message = unread_summary([f"{letter} is bad." for letter in faults], images, "out")
    assert all(fact in message for fact in expected)
    assert "d is bad" not in message
