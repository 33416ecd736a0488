"""Video files: intact, cut off, damaged, empty, of changing size. No frame is read before it is needed."""

from __future__ import annotations

from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import cv2
import numpy as np
import pytest

from distilpose.errors import DistilPoseError
from distilpose.inference.images import ImageFiles
from distilpose.inference.videos import Video, open_source


def picture(number, size=(96, 64)):
    """A grey level that grows with the number."""
    return np.full((size[1], size[0], 3), (20 + 6 * number, 90, 30), np.uint8)


@pytest.fixture
def clip(tmp_path):
    """A motion-JPEG clip of 30 frames at 20 a second, rich in detail so that its data is worth damaging."""
    path = tmp_path / "clip.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 20.0, (96, 64))
    draw = np.random.default_rng(0)
    for number in range(30):
        writer.write(cv2.add(picture(number), draw.integers(0, 40, (64, 96, 3), dtype=np.uint8)))
    writer.release()
    return path


def test_frames_in_order_with_their_times(clip):
    video = Video(str(clip))
    frames = list(video.frames())
    assert len(video) == len(frames) == 30
    assert [frame.number for frame in frames] == list(range(30))
    assert [frame.time for frame in frames] == pytest.approx([n / 20 for n in range(30)])
    assert frames[0].image.shape == (64, 96, 3)
    assert frames[0].image[..., 2].mean() < frames[-1].image[..., 2].mean()  # RGB: what was written as blue comes last
    assert video.faults == video.notes == []


def test_frames_are_read_as_they_are_needed(clip):
    video = Video(str(clip), max_frames=4)
    assert len(list(video.frames())) == len(video) == 4
    assert video.faults == []
    video = Video(str(clip))
    frames = video.frames()
    for _ in range(3):
        next(frames)
    assert video._capture.get(cv2.CAP_PROP_POS_FRAMES) == 3
    frames.close()
    assert not video._capture.isOpened()


def test_a_clip_that_is_cut_off(clip):
    content = clip.read_bytes()
    clip.write_bytes(content[: len(content) * 6 // 10])
    video = Video(str(clip))
    frames = list(video.frames())
    assert 10 < len(frames) < 22
    assert f"{clip} ended after {len(frames)} of 30 frames" in video.faults[0]


def test_a_damaged_clip_gives_the_frames_that_can_be_decoded(clip):
    intact = [frame.image for frame in Video(str(clip)).frames()]
    content = bytearray(clip.read_bytes())
    third = len(content) // 3
    content[third : third + 4000] = np.random.default_rng(0).integers(0, 256, 4000, dtype=np.uint8).tobytes()
    clip.write_bytes(content)
    video = Video(str(clip))
    frames = [frame.image for frame in video.frames()]
    assert 20 < len(frames) < 30
    for before, after in zip(intact[:5] + intact[-5:], frames[:5] + frames[-5:], strict=True):
        assert (before == after).all()
    assert f"{clip} ended after {len(frames)} of 30 frames" in video.faults[0]


@pytest.mark.parametrize("content", [b"", b"not a video" * 99])
def test_files_that_are_not_videos(content, tmp_path):
    path = tmp_path / "clip.mp4"
    path.write_bytes(content)
    with pytest.raises(DistilPoseError, match=r"clip\.mp4 is empty, damaged or not a video"):
        Video(str(path))


def test_a_clip_that_changes_size_keeps_its_first_size(tmp_path):
    path = tmp_path / "clip.mjpeg"  # frames one after another, as some cameras send them
    halves = [np.zeros((size[1], size[0], 3), np.uint8) for size in ((64, 48), (128, 96))]
    for image in halves:
        image[:, image.shape[1] // 2 :] = 255
    encoded = [cv2.imencode(".jpg", image)[1].tobytes() for image in (halves[0], halves[0], halves[1], halves[1])]
    path.write_bytes(b"".join(encoded))
    frames = list(Video(str(path)).frames())
    assert [frame.image.shape for frame in frames] == [(48, 64, 3)] * 4
    for frame in frames:
        assert frame.image[:, :28].mean() < 10
        assert frame.image[:, 36:].mean() > 245


@pytest.fixture
def address(tmp_path):
    """Address of a local server of the folder."""
    handler = partial(SimpleHTTPRequestHandler, directory=str(tmp_path))
    handler.func.log_message = lambda *_: None
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.slow
def test_a_clip_at_an_address_is_a_file(clip, address):
    video = open_source(f"{address}/{clip.name}")
    assert not video.live
    assert [frame.time for frame in video.frames()] == pytest.approx([n / 20 for n in range(30)])
    assert video.notes == video.faults == []


class Changing:
    """A camera whose pictures change size."""

    def __init__(self, *_):
        self.left = [picture(0), picture(1), picture(2, (48, 32))]

    def isOpened(self):  # noqa: N802
        return True

    def get(self, key):
        return 0.0

    def read(self):
        return (True, self.left.pop(0)) if self.left else (False, None)

    def release(self):
        pass


def test_a_file_that_does_not_state_its_number_of_frames(monkeypatch):
    monkeypatch.setattr(cv2, "VideoCapture", Changing)
    video = Video("clip.mjpeg", max_frames=50)
    assert len(video) == 50
    assert len(list(video.frames())) == 3
    assert video.faults == []


def test_a_camera(monkeypatch):
    monkeypatch.setattr(cv2, "VideoCapture", Changing)
    camera = open_source("webcam")
    frames = list(camera.frames())
    assert camera.live
    assert camera.source == 0
    assert [frame.image.shape[:2] for frame in frames] == [(64, 96), (64, 96), (32, 48)]
    assert frames[0].time < frames[1].time < frames[2].time
    assert "frame 2 to 48 x 32" in camera.notes[0]
    assert "no more frames after 3" in camera.notes[1]


def test_frames_that_are_too_large(clip):
    with pytest.raises(DistilPoseError, match=r"96 x 64 pixels, more than max_pixels=1000"):
        Video(str(clip), max_pixels=1000)


def test_kinds_of_sources(clip, tmp_path):
    cv2.imwrite(str(tmp_path / "photo.png"), picture(0))
    assert isinstance(open_source(clip), Video)
    assert isinstance(open_source(tmp_path), ImageFiles)
    assert isinstance(open_source(tmp_path / "photo.png"), ImageFiles)
    with pytest.raises(DistilPoseError, match="frames=3"):
        open_source(tmp_path, max_frames=3)


@pytest.mark.parametrize("source", ["ftp://host/clip.mp4", "rtsp://127.0.0.1:9/none", "77", "absent.mp4", "absent"])
def test_sources_that_cannot_be_opened(source):
    with pytest.raises(DistilPoseError, match=source):
        open_source(source)
