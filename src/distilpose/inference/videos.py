"""Reads videos, cameras and streams one frame at a time, and opens what `source=` names."""

from __future__ import annotations

import os
import time
from collections.abc import Generator, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from distilpose.data.image_formats import is_readable
from distilpose.errors import DistilPoseError
from distilpose.inference.containers import read_container
from distilpose.inference.images import MAX_PIXELS, Frame, ImageFiles, find_images, read_rgb, too_large_error
from distilpose.inference.live import NewestFrames

VIDEO_SUFFIXES = (
    ".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".ts", ".wmv", ".flv", ".mjpeg", ".mjpg",
    ".3gp", ".3g2", ".mts", ".m2ts", ".ogv", ".asf", ".vob", ".mxf",
)  # fmt: skip
_SCHEMES = ("rtsp://", "rtsps://", "rtmp://", "http://", "https://", "udp://")
# a file with less than this share of its frames, or of its bytes, is damaged
_COMPLETE = 0.98
_FALLBACK_FPS = 25.0


class Video:
    """A video file, a webcam or a stream. One frame is in memory at a time.

    Frames whose size differs from the first are not resized here; for most files OpenCV scales them to the first size.

    Args:
        source: file, address (rtsp://, http://, …), "webcam", or the number of a camera.
        max_frames: stop after this many frames; None reads to the end.
        max_pixels: largest number of pixels of a frame.

    Attributes:
        size: width and height of the first frame, turned as the file says.
        fps: frames a second according to the file, an estimate if its rate varies; 25 if unknown.
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
        self._count = int(count) if 0 < count < 1e9 and camera is None else 0
        self.live = self.live and not self._count
        if not 0 < self.fps < 1000:
            stated = f"{self.fps:g} frames a second" if self.fps > 0 else "no frame rate"  # browsers write 1000
            self.fps = _FALLBACK_FPS
            if not self.live:
                self.notes.append(f"{source} states {stated}: {self.fps:g} are assumed where frames have no time.")
        self._untimed = self._lost = (
            0  # frames without a time of their own, and frames that gaps between times have room for
        )
        self._start = time.monotonic()
        self._first: Any = self._capture.read()[1]
        self._arrived = time.monotonic()
        if self._first is None:
            raise DistilPoseError(self._open_error())
        self.size: tuple[int, int] = self._first.shape[1::-1]

    def __len__(self) -> int:
        """Number of frames to expect, an estimate for some containers; 0 if unknown."""
        known = [count for count in (self._count, self.max_frames) if count]
        return min(known, default=0)

    def frames(self) -> Iterator[Frame]:
        """The frames in order, once. Frames of a live source that wait while another is processed are dropped."""
        number, last, size, changed = 0, -1.0, None, False
        with closing(self._live_images() if self.live else self._file_images()) as images:
            for image, arrived in images:
                height, width = image.shape[:2]
                if size not in (None, (height, width)) and not changed:
                    changed = True
                    self.notes.append(
                        f"{self.source} changes size at frame {number} to {width} x {height}: poses are in pixels of "
                        "each frame."
                    )
                size = (height, width)
                if height * width > self.max_pixels:
                    error = too_large_error(f"Frame {number} of {self.source}", width, height, self.max_pixels)
                    self.faults.append(str(error))
                    return
                last = self._seconds(number, last, arrived)
                rgb = cv2.cvtColor(image, cv2.COLOR_BGR2RGB).astype(np.uint8, copy=False)
                yield Frame(number, time=last, image=rgb)
                number += 1
                if number == self.max_frames:
                    break
        self._report_end(number)

    def _file_images(self) -> Generator[tuple[Any, float], None, None]:
        image, self._first = self._first, None
        try:
            while image is not None:
                yield image, 0.0
                image = self._capture.read()[1]
        finally:
            self._capture.release()

    def _live_images(self) -> Generator[tuple[Any, float], None, None]:
        """The newest frames, and when they arrived."""
        newest = NewestFrames(self._capture, self._first, self._arrived)
        self._first = None
        try:
            while (read := newest.read())[0] is not None:
                yield read
        finally:
            newest.close()
            if newest.fault:
                self.faults.append(f"{self._shown} could not be read further ({newest.fault}).")
            if newest.dropped:
                self.notes.append(f"{self._shown}: {newest.dropped} frames were passed over while the model was busy.")

    def _seconds(self, number: int, last: float, arrived: float) -> float:
        """Time of the frame just read; always later than the frame before, even in a damaged file."""
        if self.live:
            return max(arrived - self._start, last + 1e-6)
        position = self._capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
        if last < position < last + 3600:
            self._lost += max(0, round((position - last) * self.fps) - 1) if last >= 0 else 0
            return position
        self._untimed += 1
        return number / self.fps if last < 0 else last + 1 / self.fps

    def _report_end(self, number: int) -> None:
        limited = number == self.max_frames
        if self._untimed:
            self.notes.append(
                f"{self.source}: {self._untimed} of {number} frames have no time of their own; {self.fps:g} a second are "
                "assumed."
            )
        if self.live and not limited:
            self.notes.append(f"{self._shown} gave no more frames after {number}: the poses found so far are kept.")
        elif not limited and (fault := self._missing_part(number)):
            self.faults.append(
                f"{self.source} ended after {fault}: it is damaged or cut off; the poses of these frames are kept."
            )

    def _missing_part(self, number: int) -> str:
        """What is missing, after that many frames: only what is certain, as the number of frames may be an estimate."""
        container = None if isinstance(self.source, int) else read_container(self.source)
        short = number < _COMPLETE * self._count
        stated = f"{number} of {self._count} frames"
        if container is None:  # an address: both number and time are short
            return stated if short and (number + self._lost) < _COMPLETE * self._count else ""
        if not container.lists_frames:
            cut = container.present < _COMPLETE * container.stated
            return f"{number} frames and {container.present} of {container.stated} bytes" if cut else ""
        lost = container.kind == "riff" or self._lost >= (1 - _COMPLETE) * self._count
        if short and (lost or container.present < container.stated):
            return stated
        if short:
            self.notes.append(
                f"{self.source}: {stated} that it lists are shown; the others were cut by an editor, or damaged."
            )
        return ""

    @property
    def _shown(self) -> str:
        """The source in messages."""
        return f"Camera {self.source}" if isinstance(self.source, int) else str(self.source)

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
    if Path(text).is_file() and not is_readable(Path(text).suffix):
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
