"""Finds image files in a folder, numbers them, and reads them one at a time."""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePath
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image as Header

from distilpose.data.coco import read_image
from distilpose.data.image_formats import SUFFIXES, is_readable, register_heif, way_out
from distilpose.errors import NOT_THE_PATH, DistilPoseError
from distilpose.files import foreign_content, natural_key

__all__ = ["SUFFIXES", "Frame", "Image", "ImageFiles", "find_images", "image_ids", "read_rgb"]

log = logging.getLogger(__name__)

Image = NDArray[np.uint8]

MAX_PIXELS = 100_000_000  # decoded, three bytes each
OPENCV_PIXELS = 1 << 30  # OpenCV decodes no larger image
_NUMBERED = re.compile(r"(.*?)([0-9]{1,18})", re.DOTALL)  # a name that ends in a number


class Frame(NamedTuple):
    """One image of a source.

    Attributes:
        number: number of the image, or position in the video from 0; its persons have it as `image_id`.
        name: file name of an image; empty for a frame of a video.
        time: seconds since the start of the video; None for an image file.
        image: (H, W, 3) uint8, RGB; None if it was skipped or cannot be read.
        fault: error message if the image cannot be read, `""` if the box file says that it has no persons, else None.
    """

    number: int
    name: str = ""
    time: float | None = None
    image: Image | None = None
    fault: str | None = None


def find_images(source: str | Path) -> list[Path]:
    """The image, or the images directly in the folder, ordered by name as people count: frame_2 before frame_10.

    What is in the folder and is not read is counted in a log message.

    Raises:
        DistilPoseError: there is none, or the source does not exist.
    """
    source = Path(source)
    if source.is_file():
        return [source]
    paths = list(source.iterdir()) if source.is_dir() else []
    images = [path for path in paths if is_readable(path.suffix) and path.name[0] != "." and not path.is_dir()]
    others = _describe_others(set(paths).difference(images))
    if not source.exists():
        raise DistilPoseError(f"'{source}' does not exist: give an image, or a folder of images.")
    if not images:
        found = f"; it has {others}" if others else ""
        raise DistilPoseError(
            f"'{source}' is neither an image nor a folder of images: expected files directly in it that end in "
            f"{', '.join(SUFFIXES)}{found}."
        )
    if others:
        log.warning("Passed over in %s: %s.", source, others)
    return sorted(images, key=natural_key)


def _describe_others(paths: Iterable[Path]) -> str:
    """Such as `2 .heic (pip install … reads them), 1 .txt, 1 folder`."""
    counts: Counter[str] = Counter()
    for path in paths:
        if path.is_dir():
            counts["folder" if path.name[0] != "." else "hidden folder"] += 1
        else:
            counts["hidden file" if path.name[0] == "." else path.suffix.lower() or "file without a suffix"] += 1
    texts = []
    for kind, count in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
        first, _, rest = kind.partition(" ")
        shown = kind if count == 1 or kind[0] == "." else f"{first}s {rest}" if first == "file" and rest else f"{kind}s"
        texts.append(f"{count} {shown}{f' ({way})' if (way := way_out(kind)) else ''}")
    return ", ".join(texts)


def image_ids(images: Sequence[Path]) -> dict[Path, int]:
    """Numbers of images: those in their names if all names are numbers (000000000785.jpg is 785), else 1, 2, … in order."""
    numbers = numbers_in_names([path.name for path in images], prefix="")
    return dict(zip(images, numbers or range(1, len(images) + 1), strict=True))


def numbers_in_names(names: Sequence[str], prefix: str | None = None) -> list[int] | None:
    """The numbers at the end of file names, such as 12 of frame_12.jpg.

    Args:
        names: file names.
        prefix: what comes before the number; None allows any prefix that all names have.

    Returns:
        One number for each name; None if a name has none, if prefixes differ, or if two numbers are equal.
    """
    matches = [match for name in names if (match := _NUMBERED.fullmatch(PurePath(name).stem)) is not None]
    prefixes = {match[1] for match in matches}
    numbers = [int(match[2]) for match in matches]
    usable = len(matches) == len(names) == len(set(numbers)) and len(prefixes) == 1 and prefix in (None, *prefixes)
    return numbers if usable else None


def read_rgb(path: str | Path, max_pixels: int = MAX_PIXELS) -> Image:
    """Read an image as (H, W, 3) uint8, RGB, rotated as its EXIF entry says, as in training.

    Args:
        path: image file.
        max_pixels: an image of more pixels, by its header, is not decoded.

    Raises:
        DistilPoseError: the file is missing, damaged, not an image, or too large.
    """
    register_heif()
    try:
        with _without_pillow_limit(), Header.open(path) as header:
            width, height = header.size
    except (OSError, SyntaxError, ValueError) as error:
        if not way_out(Path(path).suffix) and (foreign := foreign_content(path)):
            raise DistilPoseError(f"Image {path} cannot be read: {foreign}.") from None
        if getattr(error, "errno", None) in NOT_THE_PATH:
            raise
        reason = getattr(error, "strerror", None) or way_out(Path(path).suffix) or "it is cut off or not an image"
        raise DistilPoseError(
            f"Image {path} cannot be read ({reason}): give an image file, or copy it again."
        ) from None
    if width * height > max_pixels:
        raise too_large_error(str(path), width, height, max_pixels)
    return cv2.cvtColor(read_image(path), cv2.COLOR_BGR2RGB).astype(np.uint8, copy=False)


def _holds_several(path: Path) -> bool:
    """Whether a file holds further pictures, such as an animation or pages; a preview in a JPEG does not count."""
    if path.suffix.lower() not in (".gif", ".tif", ".tiff", ".webp", ".apng", ".png", ".avif"):
        return False
    try:
        with _without_pillow_limit(), Header.open(path) as header:
            return bool(getattr(header, "is_animated", False))
    except (OSError, SyntaxError, ValueError):
        return False


@contextmanager
def _without_pillow_limit() -> Iterator[None]:
    """Disable Pillow's limit of 179 million pixels; `max_pixels` replaces it."""
    before, Header.MAX_IMAGE_PIXELS = Header.MAX_IMAGE_PIXELS, None
    try:
        yield
    finally:
        Header.MAX_IMAGE_PIXELS = before


def too_large_error(name: str, width: int, height: int, max_pixels: int) -> DistilPoseError:
    """The error for an image of too many pixels."""
    return DistilPoseError(
        f"{name} has {width} x {height} pixels, more than max_pixels={max_pixels}: shrink it, or raise max_pixels."
    )


class ImageFiles:
    """Image files, read one at a time.

    Args:
        paths: the images, such as those of `find_images`.
        max_pixels: see `read_rgb`.
        ids: their numbers; by default those of `image_ids`.
        empty: images that have no persons according to the box file; they are not read.

    Attributes:
        live: False.
        noun: name of one of its frames.
        several: number of files read so far that hold further pictures, which are passed over.
    """

    live, noun = False, "image"
    several = 0

    def __init__(
        self,
        paths: Sequence[Path],
        max_pixels: int = MAX_PIXELS,
        ids: Mapping[Path, int] | None = None,
        empty: Collection[Path] = (),
    ) -> None:
        self.paths, self.max_pixels, self.empty = paths, max_pixels, empty
        self.ids = image_ids(paths) if ids is None else ids

    def __len__(self) -> int:
        """Number of images."""
        return len(self.paths)

    def frames(self, skip: Callable[[Path], bool] = lambda path: False) -> Iterator[Frame]:
        """The images in order; one that cannot be read has its error message as `fault`.

        Args:
            skip: returns whether to skip an image; its frame then has no pixels.
        """
        for path in self.paths:
            frame = Frame(self.ids[path], path.name)
            if path in self.empty:
                yield frame._replace(fault="")
            elif skip(path):
                yield frame
            else:
                try:
                    image = read_rgb(path, self.max_pixels)
                    self.several += _holds_several(path)
                    yield frame._replace(image=image)
                except DistilPoseError as error:
                    yield frame._replace(fault=str(error))
