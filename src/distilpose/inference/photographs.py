"""Photographs, read one at a time as they are needed."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image as Header
from PIL import UnidentifiedImageError

from distilpose.data.coco import read_image
from distilpose.errors import DistilPoseError
from distilpose.inference.sources import SUFFIXES, find_images, image_ids

Image = NDArray[np.uint8]

MAX_PIXELS = 100_000_000  # unpacked, three bytes each
OPENCV_PIXELS = 1 << 30  # more it does not unpack


class Frame(NamedTuple):
    """One image to look at.

    Attributes:
        number: id its persons carry: the photograph's number, or the place in the video, from 0.
        name: file name of a photograph; empty for a frame of a video.
        time: seconds since the start of the video; None of a photograph.
        image: (H, W, 3) uint8, RGB; None where it was not asked for, cannot be read or shows nobody.
        fault: why it was not read; empty of a photograph that is known to show nobody.
    """

    number: int
    name: str = ""
    time: float | None = None
    image: Image | None = None
    fault: str | None = None


def read_photo(path: str | Path, max_pixels: int = MAX_PIXELS) -> Image:
    """A photograph as (H, W, 3) uint8, RGB, turned upright as its EXIF entry says, as in training.

    Args:
        path: image file.
        max_pixels: its header is read first, and an image of more pixels is not unpacked.

    Raises:
        DistilPoseError: it is missing, damaged, no image, or too large.
    """
    try:
        with _without_pillows_limit(), Header.open(path) as header:
            width, height = header.size
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError):
        if os.path.isfile(path):  # what has no header that tells its size is not unpacked at all
            if Path(path).suffix.lower() in SUFFIXES:
                raise DistilPoseError(
                    f"Image {path} is cut off or no image that can be read: fetch it again."
                ) from None
            raise DistilPoseError(
                f"{path} is no image or video by its ending, and cannot be read as an image: give a file that ends as one, "
                "such as .jpg, .png or .mp4, or a folder."
            ) from None
        wrong = "is a folder" if os.path.isdir(path) else "does not exist"
        raise DistilPoseError(f"Image {path} {wrong}: give the path of a photograph.") from None
    if width * height > max_pixels:
        raise too_large(str(path), width, height, max_pixels)
    return cv2.cvtColor(read_image(path), cv2.COLOR_BGR2RGB).astype(np.uint8, copy=False)


@contextmanager
def _without_pillows_limit() -> Iterator[None]:
    """Pillow refuses headers of more than 179 million pixels by itself; ours is the limit that counts."""
    before, Header.MAX_IMAGE_PIXELS = Header.MAX_IMAGE_PIXELS, None
    try:
        yield
    finally:
        Header.MAX_IMAGE_PIXELS = before


def too_large(name: str, width: int, height: int, max_pixels: int) -> DistilPoseError:
    """The refusal of an image that would unpack to too much."""
    return DistilPoseError(
        f"{name} has {width} x {height} pixels, more than max_pixels={max_pixels}: make it smaller, or raise max_pixels."
    )


class Photographs:
    """An image, or the images of a folder by name.

    Args:
        source: image file or folder.
        max_pixels: see `read_photo`.

    Attributes:
        paths: the images.
        ids: their numbers, see `image_ids`; may be replaced before reading.
        empty: those that are known to show nobody, and are not read; may be set before reading.
        live: False.
    """

    live = False

    def __init__(self, source: str | Path, max_pixels: int = MAX_PIXELS) -> None:
        self.paths = find_images(source)
        self.ids = image_ids(self.paths)
        self.empty: frozenset[Path] = frozenset()
        self.max_pixels = max_pixels

    def __len__(self) -> int:
        """Number of images."""
        return len(self.paths)

    def frames(self, unread: Callable[[Path], bool] = lambda path: False) -> Iterator[Frame]:
        """The images in order.

        Args:
            unread: tells of an image whether it need not be read.
        """
        for path in self.paths:
            frame = Frame(self.ids[path], path.name)
            if path in self.empty:
                yield frame._replace(fault="")
                continue
            if unread(path):
                yield frame
                continue
            try:
                yield frame._replace(image=read_photo(path, self.max_pixels))
            except DistilPoseError as error:
                yield frame._replace(fault=str(error))
