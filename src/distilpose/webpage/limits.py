"""What the page takes from strangers: sizes, formats, numbers of persons, waiting and time. A refusal is one sentence."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from distilpose.data.annotations import numbers
from distilpose.data.coco import is_cut_off
from distilpose.data.geometry import MAX_SIDE
from distilpose.errors import DistilPoseError, check_number

FORMATS = ("JPEG", "PNG", "WEBP")
_PILLOW_MOST = 2 * 89_478_485  # pixels of a photograph whose header Pillow reads
# a box may reach past the picture, as detectors' do, but no farther than this many pictures
FAR = 4
MEGABYTE = 2**20
Result = TypeVar("Result")


class RefusedError(Exception):
    """A request that is not answered with a prediction.

    Args:
        status: the HTTP status.
        sentence: what was wrong and the way out, for the person at the page.
        retry_after: seconds after which trying again may help.
    """

    def __init__(self, status: int, sentence: str, retry_after: int | None = None):
        super().__init__(sentence)
        self.status, self.sentence, self.retry_after = status, sentence, retry_after


@dataclass(frozen=True)
class Limits:
    """What one request may ask for.

    Attributes:
        max_megabytes: of the request, in 2^20 bytes.
        max_pixels: of the photograph, told by its header before it is unpacked.
        max_persons: boxes on a photograph.
        seconds: to send a photograph, and again to compute on it.
        waiting: requests that may be in line behind the one computed.
    """

    max_megabytes: float = 10
    max_pixels: int = 40_000_000
    max_persons: int = 20
    seconds: float = 30
    waiting: int = 32

    def __post_init__(self):
        """Refuse what is no limit."""
        check_number("limits.max_megabytes", self.max_megabytes, above=0)
        check_number("limits.max_pixels", self.max_pixels, least=1, most=_PILLOW_MOST, whole=True)
        check_number("limits.max_persons", self.max_persons, least=1, whole=True)
        check_number("limits.seconds", self.seconds, above=0)
        check_number("limits.waiting", self.waiting, least=0, whole=True)


async def limited(
    stream: AsyncIterator[bytes], limits: Limits, hold: Callable[[int], None] = lambda size: None
) -> AsyncGenerator[bytes, None]:
    """The pieces of a request's body, counted as they come: what its header says of its length is not believed.

    A body that is too large is thrown away to its end, since most senders listen only then; one of more than twice the limit is
    not read on.
    `hold` is told the size of each piece that is given on.
    """
    read, most = 0, limits.max_megabytes * MEGABYTE
    async for piece in stream:
        read += len(piece)
        if read <= most:
            hold(len(piece))
            yield piece
        elif read > 2 * most:
            break
    if read > most:
        raise RefusedError(413, f"The photograph is larger than {limits.max_megabytes:g} MB: send a smaller one.")


def read_photo(content: bytes, limits: Limits) -> NDArray[np.uint8]:
    """A photograph as (H, W, 3) uint8 RGB, decoded as in training and by `predict`, upright as its EXIF says.

    Args:
        content: of a JPEG, PNG or WebP file.
        limits: `max_pixels` is checked before anything is unpacked.

    Raises:
        RefusedError: 413 of too many pixels, 422 of what is no such file or a broken one.
    """
    try:
        width, height = Image.open(io.BytesIO(content), formats=FORMATS).size
    except Image.DecompressionBombError:
        raise _too_many_pixels("more pixels than can be unpacked safely", limits) from None
    except Exception:  # what a damaged header raises depends on where it is damaged
        raise RefusedError(422, "The file is no picture that can be read: give a JPEG, PNG or WebP file.") from None
    if width * height > limits.max_pixels or max(width, height) > MAX_SIDE:
        raise _too_many_pixels(f"{width} x {height} pixels", limits)
    try:
        found = None if is_cut_off(content) else cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error:
        found = None
    if found is None:
        raise RefusedError(422, "The picture is cut off or damaged: save it again and send that.")
    return cv2.cvtColor(found, cv2.COLOR_BGR2RGB).astype(np.uint8, copy=False)


def _too_many_pixels(told: str, limits: Limits) -> RefusedError:
    return RefusedError(
        413,
        f"The picture has {told}; at most {limits.max_pixels / 1e6:g} million are taken, and {MAX_SIDE} a side: "
        "make it smaller.",
    )


def read_boxes(text: str | None, size: tuple[int, int], limits: Limits) -> NDArray[np.float64] | None:
    """The persons' boxes of a request.

    Args:
        text: JSON list of [x, y, width, height] in pixels; None, "null" and an empty list take the whole picture.
        size: height and width of the picture.
        limits: how many there may be.

    Returns:
        (N, 4), or None for the whole picture as one person.

    Raises:
        RefusedError: 422, in a sentence.
    """
    try:
        rows = json.loads(text or "null")
    except (ValueError, RecursionError):
        raise RefusedError(422, "The boxes are not JSON: send a list of [x, y, width, height] in pixels.") from None
    if rows is None or rows == []:
        return None
    if not isinstance(rows, list):
        raise RefusedError(422, "The boxes are no list: send a list of [x, y, width, height] in pixels.")
    if len(rows) > limits.max_persons:
        raise RefusedError(422, f"There are {len(rows)} boxes; at most {limits.max_persons} are taken: delete some.")
    try:
        boxes = np.stack([numbers(row, 4, "box") for row in rows])
        if any(isinstance(value, bool) for row in rows for value in row):  # NumPy counts true as 1
            raise TypeError
    except (DistilPoseError, OverflowError, TypeError):
        raise RefusedError(422, "A box is not four finite numbers: send x, y, width and height in pixels.") from None
    height, width = size
    start, extent, picture = boxes[:, :2], boxes[:, 2:], np.array([width, height])
    inside = (start < picture) & (start + extent > 0) & (extent >= 1) & (extent <= FAR * picture)
    if not inside.all():
        bad = boxes[~inside.all(1)][0]
        raise RefusedError(
            422,
            f"Box [{', '.join(f'{value:g}' for value in bad)}] is empty, far larger than the picture of {width} x {height} "
            "pixels or beside it: draw it on the picture.",
        )
    return boxes


class Line:
    """Work done one piece at a time in a thread of its own, while a limited number of others wait.

    Work that takes too long cannot be stopped: its request is refused, and the next one starts when it has ended.
    """

    def __init__(self, limits: Limits):
        self.limits = limits
        self._inside = self._held = 0
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="prediction")

    @contextmanager
    def memory(self) -> Iterator[Callable[[int], None]]:
        """A function that is told the size of each piece of a body, which is kept until the `with` ends.

        All bodies together may hold what those of a full line would; beyond it the function raises a `RefusedError`, 503. An
        upload that stalls thus takes the memory of what it has sent, and no place in the line.
        """
        held, most = 0, (self.limits.waiting + 1) * self.limits.max_megabytes * MEGABYTE

        def hold(size: int) -> None:
            nonlocal held
            if self._held + size > most:
                raise self._full()
            held += size
            self._held += size

        try:
            yield hold
        finally:
            self._held -= held

    def __enter__(self) -> Line:
        """Take a place in the line, when the photograph is there."""
        if self._inside > self.limits.waiting:
            raise self._full()
        self._inside += 1
        return self

    def __exit__(self, *error: object) -> None:
        self._inside -= 1

    async def run(self, work: Callable[..., Result], *arguments: Any) -> Result:
        """The result of `work(*arguments)`, when it is its turn; inside a `with`.

        Raises:
            RefusedError: 503 if its turn does not come, 504 if it takes longer than `seconds` then.
        """
        loop, begun = asyncio.get_running_loop(), asyncio.Event()

        def job() -> Result:
            loop.call_soon_threadsafe(begun.set)
            return work(*arguments)

        future = self._thread.submit(job)
        result = asyncio.wrap_future(future)
        try:
            # everyone in front may take their whole time
            await asyncio.wait_for(begun.wait(), self.limits.seconds * self._inside)
        except asyncio.TimeoutError:
            if future.cancel():
                raise self._full() from None
        try:
            return await asyncio.wait_for(asyncio.shield(result), self.limits.seconds)
        except asyncio.TimeoutError:
            result.add_done_callback(lambda late: late.cancelled() or late.exception())  # nobody asks for it any more
            raise RefusedError(
                504,
                f"The prediction took longer than {self.limits.seconds:g} s: try a smaller photograph or fewer boxes.",
            ) from None

    def _full(self) -> RefusedError:
        after = max(1, round(self.limits.seconds))
        return RefusedError(503, f"Too many requests are waiting: try again in {after} s.", retry_after=after)
