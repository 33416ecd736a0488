"""Whole and cut files of each container, and frame counts that are estimates."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matroska import write_matroska

from distilpose.inference.containers import read_container
from distilpose.inference.videos import Video

DRAW = np.random.default_rng(0)
IMAGES = [DRAW.integers(0, 255, (48, 64, 3), dtype=np.uint8) for _ in range(24)]


def clip(path, images=IMAGES):
    codec = {".avi": "MJPG", ".mp4": "mp4v"}[path.suffix]
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*codec), 20.0, (64, 48))
    for image in images:
        writer.write(image)
    writer.release()
    return path


def read(path):
    video = Video(path)
    return [frame.time for frame in video.frames()], video


def test_a_whole_file_of_varying_rate_is_not_damaged(tmp_path):
    """The stated number of frames is duration x rate: more than there are."""
    times = np.cumsum([0.0] + [0.033, 0.033, 0.2] * 7).tolist()
    path = write_matroska(tmp_path / "phone.mkv", IMAGES[: len(times)], times, duration=times[-1] + 0.2, fps=30)
    read_times, video = read(path)
    assert read_times == pytest.approx(times, abs=2e-3)
    assert len(video) > 1.5 * len(times)
    assert video.faults == []


@pytest.mark.parametrize("finished", [True, False])
def test_a_last_frame_that_is_shown_for_long(finished, tmp_path):
    times = [n / 20 for n in range(24)]
    path = write_matroska(tmp_path / "slides.mkv", IMAGES, times, duration=9.0, finished=finished)
    read_times, video = read(path)
    assert len(read_times) == 24
    assert video.faults == []


@pytest.mark.parametrize(("name", "share"), [("a.avi", 0.6), ("a.mkv", 0.6), ("a.mkv", 0.95)])
def test_cut_files_are_damaged(name, share, tmp_path):
    path = tmp_path / name
    if path.suffix == ".mkv":  # its stated duration is too short, so that no frame seems to be missing
        write_matroska(path, IMAGES, [n / 20 for n in range(24)], duration=0.3)
    else:
        clip(path)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    times, video = read(path)
    assert 10 < len(times) < 24
    assert len(video.faults) == 1
    assert f"ended after {len(times)}" in video.faults[0]


@pytest.mark.parametrize("name", ["a.avi", "a.mp4", "a.mkv"])
def test_whole_files_state_their_size(name, tmp_path):
    path = tmp_path / name
    if path.suffix == ".mkv":
        write_matroska(path, IMAGES, [n / 20 for n in range(24)], duration=1.2)
    else:
        clip(path)
    container = read_container(path)
    assert container.stated == container.present == path.stat().st_size
    path.write_bytes(path.read_bytes()[:-200])
    assert read_container(path).stated == container.stated
    assert read_container(tmp_path / "absent.mp4") is None


def test_other_files_state_nothing(tmp_path):
    (tmp_path / "a.ts").write_bytes(b"G" * 500)
    assert read_container(tmp_path / "a.ts") == ("", 0, 500)
    path = write_matroska(tmp_path / "live.mkv", IMAGES[:2], [0, 1], finished=False)
    assert read_container(path).stated == 0


class Capture:
    """Frames of given times from a file whose stated number and rate are arbitrary."""

    def __init__(self, times, count, fps):
        self.left, self.values, self.time = list(times), {cv2.CAP_PROP_FRAME_COUNT: count, cv2.CAP_PROP_FPS: fps}, 0.0

    def isOpened(self):  # noqa: N802
        return True

    def get(self, key):
        return 1000 * self.time if key == cv2.CAP_PROP_POS_MSEC else self.values.get(key, 0.0)

    def read(self):
        if not self.left:
            return False, None
        self.time = self.left.pop(0)
        return True, np.zeros((4, 4, 3), np.uint8)

    def release(self):
        pass


@settings(deadline=None, max_examples=40)
@given(
    gaps=st.lists(st.floats(0.01, 2.0), min_size=1, max_size=20),
    count=st.floats(-1, 1e6),
    fps=st.floats(0, 2000),
    kind=st.sampled_from(["mkv", "ts", "webm"]),
)
def test_no_estimate_makes_a_whole_file_damaged(gaps, count, fps, kind, tmp_path_factory):
    times = np.cumsum(gaps).tolist()
    path = tmp_path_factory.mktemp("clip") / f"a.{kind}"
    if kind == "ts":
        path.write_bytes(b"G" * 188)
    else:
        write_matroska(path, IMAGES[:1], [0])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cv2, "VideoCapture", lambda *_: Capture(times, count, fps))
        read_times, video = read(path)
    assert read_times == pytest.approx(times)
    assert video.faults == []
