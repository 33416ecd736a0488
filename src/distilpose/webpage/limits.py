"""Limits of a request to the page: sizes, formats, number of persons, queue and time."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

import cv2
import numpy as np
from annotated_types import Ge, Gt, Le, Unit
from numpy.typing import NDArray
from PIL import Image

from distilpose.data.coco import is_cut_off
from distilpose.data.geometry import MAX_SIDE, given_boxes
from distilpose.errors import DistilPoseError

FORMATS = ("JPEG", "PNG", "WEBP")
PILLOW_PIXELS = 2 * 89_478_485  # Pillow does not open a larger image
MEGABYTE = 2**20
Result = TypeVar("Result")


class RequestError(Exception):
    """A request that gets an error message instead of a prediction.

    Args:
        status: the HTTP status.
        message: what is wrong and what to do, shown on the page.
        retry_after: seconds after which the request may be repeated.
    """

    def __init__(self, status: int, message: str, retry_after: int | None = None):
        super().__init__(message)
        self.status, self.message, self.retry_after = status, message, retry_after


@dataclass(frozen=True)
class Limits:
    """Limits of one request.

    Attributes:
        max_megabytes: size of the request, in 2^20 bytes.
        max_pixels: pixels of the image, by its header before it is decoded.
        max_persons: boxes on an image.
        seconds: time to send an image, and again to predict.
        waiting: requests in the queue behind the running one.
    """

    max_megabytes: Annotated[float, Gt(0), Unit("MB")] = 10
    max_pixels: Annotated[int, Ge(1), Le(PILLOW_PIXELS)] = 40_000_000
    max_persons: Annotated[int, Ge(1)] = 20
    seconds: Annotated[float, Gt(0), Unit("s")] = 30
    waiting: Annotated[int, Ge(0)] = 32


async def limit_body(stream: AsyncIterator[bytes], limits: Limits) -> AsyncGenerator[bytes, None]:
    """Yield the pieces of a request's body and count their bytes, because the length in the header may be wrong.

    A body that is too large is read up to twice the limit and discarded, because most clients read the response only then.

    Raises:
        RequestError: 413 at the end of a body that is too large.
    """
    size, limit = 0, limits.max_megabytes * MEGABYTE
    async for piece in stream:
        size += len(piece)
        if size <= limit:
            yield piece
        elif size > 2 * limit:
            break
    if size > limit:
        raise RequestError(413, f"The image is larger than {limits.max_megabytes:g} MB: send a smaller one.")


def decode_image(content: bytes, limits: Limits) -> NDArray[np.uint8]:
    """An image as (H, W, 3) uint8 RGB, decoded as in training and by `predict`, rotated as its EXIF entry says.

    Args:
        content: a JPEG, PNG or WebP file.
        limits: `max_pixels` is checked before anything is decoded.

    Raises:
        RequestError: 413 for too many pixels, 422 for another format or a damaged file.
    """
    try:
        width, height = Image.open(io.BytesIO(content), formats=FORMATS).size
    except Image.DecompressionBombError:
        width = height = MAX_SIDE + 1
    except Exception:  # a damaged header raises many kinds of exceptions
        raise RequestError(422, "The file is not an image that can be read: send a JPEG, PNG or WebP file.") from None
    if width * height > limits.max_pixels or max(width, height) > MAX_SIDE:
        raise RequestError(
            413,
            f"The image is too large ({width} x {height} pixels): send at most {limits.max_pixels / 1e6:g} million pixels and "
            f"{MAX_SIDE} a side.",
        )
    try:
        image = None if is_cut_off(content) else cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error:
        image = None
    if image is None:
        raise RequestError(422, "The image is cut off or damaged: save it again and send that.")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB).astype(np.uint8, copy=False)


def read_boxes(text: str | None, size: tuple[int, int], limits: Limits) -> NDArray[np.float64] | None:
    """The boxes of a request.

    Args:
        text: JSON list of [x, y, width, height] in pixels; None, "null" and an empty list mean the whole image.
        size: height and width of the image.
        limits: largest number of boxes.

    Returns:
        (N, 4), or None for the whole image as one person.

    Raises:
        RequestError: 422 for boxes that are malformed, too many, or not on the image.
    """
    try:
        boxes = given_boxes(json.loads(text or "[]") or [], size)
    except (DistilPoseError, ValueError, OverflowError, RecursionError) as error:
        raise RequestError(422, f"The boxes cannot be used ({error}): send a list of [x, y, width, height].") from None
    if len(boxes) > limits.max_persons:
        raise RequestError(422, f"There are {len(boxes)} boxes: send at most {limits.max_persons}.")
    return boxes if len(boxes) else None


class PredictionQueue:
    """Runs one function at a time in a thread of its own, while a limited number of others wait.

    A running function cannot be stopped. After the time limit its request gets an error; the next function starts when it ends.
    """

    def __init__(self, limits: Limits):
        self.limits = limits
        self._pending = 0
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="prediction")

    async def run(self, function: Callable[..., Result], *arguments: Any) -> Result:
        """The result of `function(*arguments)`.

        Raises:
            RequestError: 503 if the queue is full, 504 if it takes longer than `seconds` for each request up to this one.
        """
        seconds = self.limits.seconds
        if self._pending > self.limits.waiting:
            after = max(1, round(seconds))
            raise RequestError(503, f"Too many requests are waiting: try again in {after} s.", retry_after=after)
        self._pending += 1
        try:
            future = asyncio.wrap_future(self._thread.submit(function, *arguments))
            return await asyncio.wait_for(future, seconds * self._pending)
        except asyncio.TimeoutError:
            message = f"The prediction took longer than {seconds:g} s: send a smaller image or fewer boxes."
            raise RequestError(504, message) from None
        finally:
            self._pending -= 1
