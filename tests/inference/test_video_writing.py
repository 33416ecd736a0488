"""Drawn videos: the times of their source, and a codec that browsers play where there is one."""

from __future__ import annotations

import shlex

import cv2
import numpy as np
import pytest
from matroska import write_matroska

from distilpose.inference.video_writing import VideoWriter, drawing_rate

IMAGES = [np.full((48, 64, 3), 10 * number, np.uint8) for number in range(24)]


def write(path, times, fps=20.0):
    writer = VideoWriter(path, fps)
    for number, time in enumerate(times):
        writer.write(np.full((48, 64, 3), 10 * number, np.uint8), time)
    writer.close()
    capture, levels = cv2.VideoCapture(str(path)), []
    while (read := capture.read())[0]:
        levels.append(round(read[1].mean() / 10))
    return writer, levels


@pytest.mark.parametrize("start", [0.0, 7.3])
def test_each_frame_is_shown_at_its_time(start, tmp_path):
    times = [0, 0.05, 0.3, 0.35, 0.36, 1.0]
    writer, levels = write(tmp_path / "a.avi", [start + time for time in times])
    assert levels == [0, 1, 1, 1, 1, 1, 2, 3, *[3] * 12, 5]  # the fifth comes within the time of the fourth
    assert writer.count == len(levels)
    assert any("leaves out 1 frames" in note for note in writer.notes(tmp_path / "a.avi"))


def test_a_constant_rate_has_one_frame_each(tmp_path):
    for fps in (20.0, 29.97, 7.0):
        writer, levels = write(tmp_path / "a.avi", [n / fps for n in range(20)], fps)
        assert levels == [*range(20)]
        assert list(writer.notes(tmp_path / "a.avi")) == []


def test_long_pauses_are_shortened(tmp_path):
    writer, levels = write(tmp_path / "a.avi", [0, 3600, 3600.05])
    assert len(levels) == 203
    assert any("shortens 1 pauses" in note for note in writer.notes(tmp_path / "a.avi"))


def test_browsers_play_it_or_a_note_says_that_they_do_not(tmp_path):
    writer, levels = write(tmp_path / "a.mp4", [0, 0.05, 0.1])
    assert len(levels) == 3
    code = int(cv2.VideoCapture(str(tmp_path / "a.mp4")).get(cv2.CAP_PROP_FOURCC)).to_bytes(4, "little").decode()
    notes = list(writer.notes(tmp_path / "a.mp4"))
    assert (code.lower() in ("avc1", "h264")) == (notes == [])
    assert notes == [] or ("browsers" in notes[0] and "libx264" in notes[0])
    assert notes == [] or str(tmp_path / "a.mp4") in shlex.split(notes[0])  # from the folder where the command ran


def test_the_rate_of_a_drawing(tmp_path):
    times = np.cumsum([0.0] + [1 / 30, 1 / 30, 0.2] * 7).tolist()
    path = write_matroska(tmp_path / "a.mkv", IMAGES[: len(times)], times, duration=times[-1], fps=12)
    stated = cv2.VideoCapture(str(path)).get(cv2.CAP_PROP_FPS)
    assert drawing_rate(str(path), stated) == pytest.approx(30, abs=2)
    assert drawing_rate(str(path), 30.0) == pytest.approx(30, abs=2)
    constant = write_matroska(tmp_path / "b.mkv", IMAGES, [n / 20 for n in range(24)], duration=1.2, fps=20)
    assert drawing_rate(str(constant), 20.0) == 20.0
    assert drawing_rate(0, 25.0) == drawing_rate("rtsp://host", 25.0) == 25.0
