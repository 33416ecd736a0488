"""The newest frames of a camera or a stream: a thread reads them as they come, and old ones are dropped."""

from __future__ import annotations

import time
from collections import deque
from threading import Condition, Thread
from typing import Any

import cv2

from distilpose.errors import first_line

LATEST = 0.1  # seconds that a frame may wait; older ones are dropped if there is a newer one
_BUFFERED = 0.005  # a read that is faster returned a frame from a buffer
_DRAIN = 0.5  # seconds at most for old frames in a buffer


class NewestFrames:
    """Reads a live source in a thread, so that a slow reader gets new frames and not ever older ones.

    Args:
        capture: the opened source; it is released at the end.
        first: a frame that was read already.
        arrived: when it arrived, by time.monotonic.

    Attributes:
        dropped: number of frames that were dropped.
        fault: why reading failed; "" if the source ended.
    """

    def __init__(self, capture: cv2.VideoCapture, first: Any, arrived: float) -> None:
        self.dropped, self.fault = 0, ""
        self._capture, self._stop = capture, False
        self._first = (first, arrived)
        self._waiting: deque[tuple[Any, float]] = deque()
        self._changed = Condition()
        self._thread = Thread(target=self._run, name="live", daemon=True)
        self._thread.start()

    def read(self) -> tuple[Any, float]:
        """The next frame that is new enough, None at the end, and when it arrived. It waits for one."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting)
            self._drop_old()
            return self._waiting.popleft()

    def close(self) -> None:
        """Stop reading, and release the source."""
        self._stop = True
        self._thread.join(timeout=2)

    def _drop_old(self) -> None:
        while len(self._waiting) > 1 and self._waiting[1][0] is not None and _age(self._waiting[0]) > LATEST:
            self._waiting.popleft()
            self.dropped += 1

    def _run(self) -> None:
        try:
            self._read_all()
        except Exception as error:  # the type depends on the driver; whoever reads the frames reports it
            self.fault = f"{type(error).__name__}: {first_line(error)}"
        finally:  # whatever stops this thread, the reader must not wait for it
            with self._changed:
                self._waiting.append((None, time.monotonic()))
                self._changed.notify()
            self._capture.release()

    def _read_all(self) -> None:
        if _age(self._first) > LATEST and (image := self._after_buffered()) is not None:
            self.dropped += 1  # the first frame
        else:
            with self._changed:
                self._waiting.append(self._first)
                self._changed.notify()
            image = self._next()
        while not self._stop and image is not None:
            with self._changed:
                self._waiting.append((image, time.monotonic()))
                self._drop_old()
                self._changed.notify()
            image = self._next()

    def _next(self) -> Any:
        try:
            return self._capture.read()[1]
        except cv2.error:
            return None

    def _after_buffered(self) -> Any:
        """The first frame that is not from a buffer, which filled up while the model was loaded."""
        start = before = time.monotonic()
        while (image := self._next()) is not None:
            now = time.monotonic()
            if now - before > _BUFFERED or now - start > _DRAIN or self._stop:
                break
            self.dropped += 1
            before = now
        return image


def _age(read: tuple[Any, float]) -> float:
    return time.monotonic() - read[1]
