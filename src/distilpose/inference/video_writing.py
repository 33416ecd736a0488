"""Writes a drawn video with the times of its source, in a codec that browsers play where OpenCV has its encoder."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from shlex import quote

import cv2
import numpy as np

from distilpose.errors import DistilPoseError
from distilpose.files import atomic_write
from distilpose.visualization.drawing import Image

_MAX_FPS = 60.0
_MAX_PAUSE = 10.0  # seconds that a frame is shown at most


class VideoWriter:
    """Writes video in the size of the first frame, rounded down to even numbers; other frames are scaled to it.

    A .mp4 file is H.264 if OpenCV can encode it here, else MPEG-4 part 2, which browsers do not play.

    Args:
        path: .mp4 or .avi.
        fps: frames a second.

    Attributes:
        count: number of frames in the file.
        left_out: number of frames that came within the time of the frame before.
        shortened: number of pauses of more than ten seconds.
        codec: avc1 or mp4v; "" before the first frame.
    """

    def __init__(self, path: Path, fps: float) -> None:
        self.path, self.fps = path, fps
        self._writer: cv2.VideoWriter | None = None
        self._size = (0, 0)
        self._last: Image | None = None
        self._start: float | None = None
        self.count = self.left_out = self.shortened = 0
        self.codec = ""

    def write(self, image: Image, time: float | None = None) -> None:
        """Add an RGB frame.

        Args:
            image: (H, W, 3) uint8, RGB.
            time: seconds; the frame before is repeated until then. None puts it right after the frame before.

        Raises:
            DistilPoseError: OpenCV cannot write such a video here.
        """
        if self._writer is None:
            self._size = (image.shape[1] // 2 * 2, image.shape[0] // 2 * 2)
            self._writer = self._open()
        if time is not None:
            self._start = time - self.count / self.fps if self._start is None else self._start
            wait = round((time - self._start) * self.fps) - self.count
            if wait < 0:
                self.left_out += 1
                return
            if wait > _MAX_PAUSE * self.fps:
                self.shortened += 1
                self._start += wait / self.fps - _MAX_PAUSE
                wait = round(_MAX_PAUSE * self.fps)
            for _ in range(wait if self._last is not None else 0):
                self._add(self._last)
        if image.shape[1] // 2 * 2 == self._size[0] and image.shape[0] // 2 * 2 == self._size[1]:
            image = image[: self._size[1], : self._size[0]]
        else:
            image = cv2.resize(image, self._size, interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)
        self._last = cv2.cvtColor(image, cv2.COLOR_RGB2BGR).astype(np.uint8, copy=False)
        self._add(self._last)

    def _add(self, image: Image | None) -> None:
        assert self._writer is not None
        assert image is not None
        self._writer.write(image)
        self.count += 1

    def _open(self) -> cv2.VideoWriter:
        os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
        before = cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
        try:
            for codec in ("avc1", "mp4v") if self.path.suffix == ".mp4" else ("mp4v",):
                writer = cv2.VideoWriter(str(self.path), cv2.VideoWriter.fourcc(*codec), self.fps, self._size)
                if writer.isOpened():
                    self.codec = codec
                    return writer
        finally:
            cv2.utils.logging.setLogLevel(before)
        raise DistilPoseError(
            f"OpenCV cannot write a video with the suffix '{self.path.suffix}' here: use .avi or .mp4, or draw=false "
            "for predict."
        )

    def close(self) -> None:
        """Finish the file; without any frame it is an empty file."""
        if self._writer is None:
            self.path.touch()
        else:
            self._writer.release()

    def notes(self, path: Path) -> Iterator[str]:
        """Sentences on what differs from the source, for the file's final name."""
        if self.codec == "mp4v" and path.suffix == ".mp4":
            yield (
                f"{path} is MPEG-4 part 2, as OpenCV has no H.264 encoder here, and browsers do not play it: "
                f"ffmpeg -i {quote(str(path))} -c:v libx264 -pix_fmt yuv420p {quote(str(path.with_stem(f'{path.stem}_h264')))} "
                "converts it."
            )
        if self.left_out:
            yield f"{path} leaves out {self.left_out} frames that follow within 1/{self.fps:g} s, the time of a frame in it."
        if self.shortened:
            yield f"{path} shortens {self.shortened} pauses of more than {_MAX_PAUSE:g} s."


@contextmanager
def atomic_video(path: Path, fps: float) -> Iterator[VideoWriter]:
    """A writer of a video that is renamed to `path` when the block ends, and removed if the block raises.

    An existing video that is longer, from an earlier start that got further, is kept.
    """
    with atomic_write(path) as temporary:
        writer = VideoWriter(temporary, fps)
        try:
            yield writer
        finally:
            writer.close()
        if path.exists() and cv2.VideoCapture(str(path)).get(cv2.CAP_PROP_FRAME_COUNT) > writer.count:
            shutil.copyfile(path, temporary)


def drawing_rate(source: str | int, stated: float, frames: int = 100) -> float:
    """Frames a second for a drawing of a source: the stated rate, or for a file of a varying rate one that its frames fit.

    Args:
        source: file, address or camera; only files are read.
        stated: its stated rate.
        frames: number of frames whose times are compared.
    """
    if isinstance(source, int) or not os.path.isfile(source):
        return stated
    capture, times = cv2.VideoCapture(source, cv2.CAP_FFMPEG), list[float]()
    while len(times) < frames and capture.grab():
        times.append(capture.get(cv2.CAP_PROP_POS_MSEC) / 1000)
    capture.release()
    gaps = np.diff(times)
    gaps = gaps[gaps > 0]
    if not len(gaps) or (abs(gaps * stated - 1) < 0.25).all():
        return stated
    return float(min(max(stated, 1 / np.quantile(gaps, 0.05)), _MAX_FPS))
