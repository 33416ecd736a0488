"""Reads videos, cameras and streams one frame at a time, and opens what `source=` names."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from distilpose.errors import DistilPoseError
from distilpose.inference.images import MAX_PIXELS, SUFFIXES, Frame, ImageFiles, find_images, read_rgb, too_large_error

VIDEO_SUFFIXES = (
    ".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".ts", ".wmv", ".flv", ".mjpeg", ".mjpg",
)  # fmt: skip
_SCHEMES = ("rtsp://", "rtsps://", "rtmp://", "http://", "https://", "udp://")
# a container's number of frames may be an estimate; a file with less than this share of it is damaged
_COMPLETE = 0.98


class Video:
    """A video file, a webcam or a stream. One frame is in memory at a time.

    Frames whose size differs from the first are not resized here; for most files OpenCV scales them to the first size.

    Args:
        source: file, address (rtsp://, http://, …), "webcam", or the number of a camera.
        max_frames: stop after this many frames; None reads to the end.
        max_pixels: largest number of pixels of a frame.

    Attributes:
        fps: frames a second according to the file; 25 if unknown.
        live: whether it is a camera or a stream, which has no end and cannot be read again. A file at an address has a
            number of frames and is not live.
        faults: messages on lost frames, complete after `frames` has ended.
        notes: further messages, also complete only after `frames` has ended.
        noun: name of one of its frames.

    Raises:
        DistilPoseError: it cannot be opened, has no frame, or its frames are too large.
    """

    noun = "frame"

    def __init__(self, source: str | int | Path, max_frames: int | None = None, max_pixels: int = MAX_PIXELS) -> None:
        camera = _camera_number(source)
        self.source = str(source) if camera is None else camera
        self.max_frames, self.max_pixels = max_frames, max_pixels
        self.live = camera is not None or _is_address(source)
        self.faults: list[str] = []
        self.notes: list[str] = []
        self._capture = _open(self.source)
        width, height, self.fps, count = (
            self._capture.get(key)
            for key in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT, cv2.CAP_PROP_FPS, cv2.CAP_PROP_FRAME_COUNT)
        )
        if width * height > max_pixels:
            raise too_large_error(f"A frame of {source}", int(width), int(height), max_pixels)
        self.fps = self.fps if 0 < self.fps < 1000 else 25.0
        self._count = int(count) if 0 < count < 1e9 and camera is None else 0
        self.live = self.live and not self._count
        self._start = time.monotonic()
        self._first: Any = self._capture.read()[1]
        if self._first is None:
            raise DistilPoseError(self._open_error())

    def __len__(self) -> int:
        """Number of frames to expect; 0 if unknown."""
        known = [count for count in (self._count, self.max_frames) if count]
        return min(known, default=0)

    def frames(self) -> Iterator[Frame]:
        """The frames in order, once."""
        number, last, size = 0, -1.0, None
        image, self._first = self._first, None
        try:
            while image is not None:
                height, width = image.shape[:2]
                if size not in (None, (height, width)) and not self.notes:
                    self.notes.append(
                        f"{self.source} changes size at frame {number} to {width} x {height}: poses are in pixels of "
                        "each frame."
                    )
                size = (height, width)
                if height * width > self.max_pixels:
                    error = too_large_error(f"Frame {number} of {self.source}", width, height, self.max_pixels)
                    self.faults.append(str(error))
                    return
                last = self._seconds(number, last)
                rgb = cv2.cvtColor(image, cv2.COLOR_BGR2RGB).astype(np.uint8, copy=False)
                yield Frame(number, time=last, image=rgb)
                number += 1
                image = None if number == self.max_frames else self._capture.read()[1]
        finally:
            self._capture.release()
        self._report_end(number)

    def _seconds(self, number: int, last: float) -> float:
        """Time of the frame just read; always later than the frame before, even in a damaged file."""
        if self.live:
            return max(time.monotonic() - self._start, last + 1e-6)
        position = self._capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
        return position if last < position < last + 3600 else (number / self.fps if last < 0 else last + 1 / self.fps)

    def _report_end(self, number: int) -> None:
        expected = len(self) if self._count else 0
        if number < _COMPLETE * expected:
            self.faults.append(
                f"{self.source} ended after {number} of {expected} frames: it is damaged or cut off; the poses of "
                "these frames are kept."
            )
        if self.live and (self.max_frames is None or number < self.max_frames):
            self.notes.append(f"{self.source} gave no more frames after {number}: the poses found so far are kept.")

    def _open_error(self) -> str:
        if isinstance(self.source, int):
            return f"Camera {self.source} cannot be opened: check that it is connected and not in use, or give another number."
        if self.live:
            return f"Stream {self.source} cannot be opened: check the address, and that this machine may reach it."
        reason = "is empty, damaged or not a video" if os.path.exists(self.source) else "does not exist"
        return f"{self.source} {reason}: give another file, or copy it again."


def open_source(
    source: str | int | Path, max_frames: int | None = None, max_pixels: int = MAX_PIXELS
) -> ImageFiles | Video:
    """Open a camera (its number or "webcam"), an address, a video file, an image or a folder of images.

    A file is a video by its suffix; any other file is read as an image.

    Raises:
        DistilPoseError: it does not exist, or cannot be opened.
    """
    text = str(source)
    if _camera_number(source) is not None or _is_address(source) or Path(text).suffix.lower() in VIDEO_SUFFIXES:
        return Video(source, max_frames, max_pixels)
    if max_frames is not None:
        raise DistilPoseError(
            f"frames={max_frames} needs a video, webcam or stream, but source={text} is not: remove it."
        )
    if Path(text).is_file() and Path(text).suffix.lower() not in SUFFIXES:
        read_rgb(text, max_pixels)  # raises before the output folder is created
    return ImageFiles(find_images(text), max_pixels)


def _camera_number(source: str | int | Path) -> int | None:
    """The number of a camera; None for any other source, such as a file whose name is a number."""
    text = str(source)
    if text == "webcam":
        return 0
    return int(text) if text.isascii() and text.isdigit() and not Path(text).exists() else None


def _is_address(source: str | int | Path) -> bool:
    return str(source).lower().startswith(_SCHEMES)


def _open(source: str | int) -> cv2.VideoCapture:
    """Open a source with OpenCV. The log of OpenCV and FFmpeg is silenced, because this module reports damaged files."""
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    logging = cv2.utils.logging
    before = logging.setLogLevel(logging.LOG_LEVEL_SILENT)
    try:
        return cv2.VideoCapture(source, cv2.CAP_ANY if isinstance(source, int) else cv2.CAP_FFMPEG)
    finally:
        logging.setLogLevel(before)
