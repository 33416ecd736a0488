"""Videos, cameras and streams, read a frame at a time; and what a `source=` means."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from distilpose.errors import DistilPoseError
from distilpose.inference.photographs import MAX_PIXELS, Frame, Photographs, read_photo, too_large
from distilpose.inference.sources import SUFFIXES

VIDEO_SUFFIXES = (
    ".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".ts", ".wmv", ".flv", ".mjpeg", ".mjpg",
)  # fmt: skip
_SCHEMES = ("rtsp://", "rtsps://", "rtmp://", "http://", "https://", "udp://")
# a container's count of frames may be an estimate; a share below this much of it is a damaged or cut-off file
_WHOLE = 0.98
# FFmpeg's own words about damaged files would come between ours
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")


class Video:
    """A video file, a webcam or a stream. No more than one frame is held.

    Frames that differ in size from the first are given as they come; OpenCV itself scales those of most files to the size
    of the first.

    Args:
        source: file, address (rtsp://, http://, …), or the number of a camera.
        max_frames: end after so many; None goes on to the end.
        max_pixels: of a frame.

    Attributes:
        fps: frames a second as the file says; 25 where it does not.
        live: whether it is a camera or a stream, which has no end and no beginning to come back to. A file at an address is
            none: it tells how many frames it has.
        faults: sentences on what was lost, complete once `frames` has ended.
        notes: sentences on what else there is to know, likewise.

    Raises:
        DistilPoseError: it cannot be opened or has no frame.
    """

    def __init__(self, source: str | int, max_frames: int | None = None, max_pixels: int = MAX_PIXELS) -> None:
        self.source, self.max_frames, self.max_pixels = source, max_frames, max_pixels
        self.live = isinstance(source, int) or _is_address(source)
        self.faults: list[str] = []
        self.notes: list[str] = []
        backend = cv2.CAP_ANY if isinstance(source, int) else cv2.CAP_FFMPEG
        self._capture = _opened(source, backend)
        if not self._capture.isOpened():
            raise DistilPoseError(self._unopened())
        width, height, self.fps, counted = (
            self._capture.get(key)
            for key in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT, cv2.CAP_PROP_FPS, cv2.CAP_PROP_FRAME_COUNT)
        )
        if width * height > max_pixels:
            raise too_large(f"A frame of {source}", int(width), int(height), max_pixels)
        self.fps = self.fps if 0 < self.fps < 1000 else 25.0
        self._counted = int(counted) if 0 < counted < 1e9 and not isinstance(source, int) else 0
        self.live = self.live and not self._counted
        self._start = time.monotonic()
        _, image = self._capture.read()
        self._first: Any = image
        if image is None:
            raise DistilPoseError(f"{source} holds no frame that can be decoded: give another file.")

    def __len__(self) -> int:
        """Frames to expect; 0 where it is not known."""
        known = [count for count in (self._counted, self.max_frames) if count]
        return min(known) if known and (self.live or self._counted) else self.max_frames or 0

    def frames(self) -> Iterator[Frame]:
        """The frames in order, once."""
        number, last, size = 0, -1.0, None
        image, self._first = self._first, None
        try:
            while image is not None:
                if size is not None and image.shape[:2] != size:
                    self._tell_change(number, size, image.shape[:2])
                size = image.shape[:2]
                if size[0] * size[1] > self.max_pixels:
                    self.faults.append(
                        str(too_large(f"Frame {number} of {self.source}", size[1], size[0], self.max_pixels))
                    )
                    return
                last = self._seconds(number, last)
                yield Frame(
                    number, time=last, image=cv2.cvtColor(image, cv2.COLOR_BGR2RGB).astype(np.uint8, copy=False)
                )
                number += 1
                image = None if number == self.max_frames else self._capture.read()[1]
        finally:
            self._capture.release()
        self._tell_end(number)

    def _seconds(self, number: int, last: float) -> float:
        """When the frame just read is shown; later than the one before, whatever a damaged file says."""
        if self.live:
            return max(time.monotonic() - self._start, last + 1e-6)
        told = self._capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
        return told if last < told < last + 3600 else (number / self.fps if last < 0 else last + 1 / self.fps)

    def _tell_change(self, number: int, before: tuple[int, ...], after: tuple[int, ...]) -> None:
        if not self.notes:
            self.notes.append(
                f"{self.source} changes size at frame {number} ({before[1]} x {before[0]} to {after[1]} x {after[0]}): "
                "poses are in pixels of each frame as it came."
            )

    def _tell_end(self, number: int) -> None:
        asked = len(self)
        if not self.live and asked and number < _WHOLE * asked:
            self.faults.append(
                f"{self.source} ended after {number} of {asked} frames: it is damaged or cut off, and the poses of the "
                "frames before are kept."
            )
        if self.live and (self.max_frames is None or number < self.max_frames):
            self.notes.append(f"{self.source} gave no more frames after {number}: the poses found until then are kept.")

    def _unopened(self) -> str:
        if isinstance(self.source, int):
            return f"Camera {self.source} cannot be opened: see that it is plugged in and not in use, or give another number."
        if self.live:
            return f"Stream {self.source} cannot be opened: check the address and that this machine may reach it."
        size = os.path.getsize(self.source)
        return f"{self.source} is empty, damaged or no video that can be read ({size} bytes): fetch it again."


def open_source(
    source: str | int | Path, max_frames: int | None = None, max_pixels: int = MAX_PIXELS
) -> Photographs | Video:
    """What a `source=` means: a camera's number or "webcam", an address, a video file, an image or a folder.

    A file is a video by its ending; what has neither a video's nor an image's ending is taken for an image.

    Raises:
        DistilPoseError: it is not there, or cannot be opened.
    """
    text = str(source)
    if text == "webcam" or (text.isascii() and text.isdigit() and not Path(text).exists()):
        return Video(0 if text == "webcam" else int(text), max_frames, max_pixels)
    if _is_address(text):
        return Video(text, max_frames, max_pixels)
    if "://" in text:
        raise DistilPoseError(f"'{text}' is no address that can be opened: expected one of {', '.join(_SCHEMES)}.")
    if is_video(text):
        if not Path(text).is_file():
            raise DistilPoseError(f"'{text}' does not exist: give a video, an image or a folder that does.")
        return Video(text, max_frames, max_pixels)
    if max_frames is not None:
        raise DistilPoseError(f"frames={max_frames} is for videos, webcams and streams, but '{text}' is none.")
    if Path(text).is_file() and Path(text).suffix.lower() not in SUFFIXES:
        read_photo(text, max_pixels)  # what is no image is told before there is a folder for its poses
    return Photographs(text, max_pixels)


def is_video(source: str | Path) -> bool:
    """Whether a path ends as a video's does."""
    return Path(source).suffix.lower() in VIDEO_SUFFIXES


def _is_address(source: str | int) -> bool:
    return str(source).lower().startswith(_SCHEMES)


def _opened(source: str | int, backend: int) -> cv2.VideoCapture:
    """OpenCV's reader, without its own words where it cannot open the source: ours say what to do."""
    logging = cv2.utils.logging
    before = logging.setLogLevel(logging.LOG_LEVEL_SILENT)
    try:
        return cv2.VideoCapture(source, backend)
    finally:
        logging.setLogLevel(before)
