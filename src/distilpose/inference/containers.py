"""Whether a video file is complete, from what its container states.

OpenCV gives no length in bytes, and its number of frames is an estimate for containers without one (Matroska, WebM, transport
streams): duration times mean frame rate.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Literal, NamedTuple

_ISO_BOXES = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot", b"styp")
_EBML, _SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"


class Container(NamedTuple):
    """What a video file states.

    Attributes:
        kind: iso (mp4, mov), riff (avi), matroska (mkv, webm); "" for others. iso and riff list every frame.
        stated: bytes of the complete file; 0 if it does not state them.
        present: bytes of the file.
    """

    kind: Literal["iso", "riff", "matroska", ""]
    stated: int
    present: int

    @property
    def lists_frames(self) -> bool:
        """Whether its number of frames is a count and no estimate."""
        return self.kind in ("iso", "riff")


def read_container(path: str | Path) -> Container | None:
    """What a file states; None for an address or a file that cannot be read."""
    try:
        present = os.stat(path).st_size
        with open(path, "rb") as file:
            start = file.read(12)
            file.seek(0)
            if start[4:8] in _ISO_BOXES:
                return Container("iso", max(_iso_ends(file, present), default=0), present)
            if start[:4] == b"RIFF":
                return Container("riff", max(_riff_ends(file, present), default=0), present)
            if start[:4] == _EBML:
                return Container("matroska", _segment_end(file), present)
    except OSError:
        return None
    return Container("", 0, present)


def _iso_ends(file: BinaryIO, present: int) -> Iterator[int]:
    """Ends of the boxes at the top level."""
    position = 0
    while position + 8 <= present:
        file.seek(position)
        header = file.read(16)
        size = int.from_bytes(header[:4], "big")
        size = int.from_bytes(header[8:16], "big") if size == 1 else size
        if size < 8:  # 0: to the end of the file
            return
        position += size
        yield position


def _riff_ends(file: BinaryIO, present: int) -> Iterator[int]:
    """Ends of the RIFF lists: a large file has several."""
    position = 0
    while position + 8 <= present:
        file.seek(position)
        header = file.read(8)
        size = int.from_bytes(header[4:], "little")
        if header[:4] != b"RIFF" or size == 0:  # 0: the writer did not finish
            return
        position += 8 + size
        yield position
        position += size % 2


def _segment_end(file: BinaryIO) -> int:
    """End of the segment; 0 if the writer did not state it, as in a live recording."""
    file.seek(4)
    size, _ = _ebml_size(file)
    file.seek(size, os.SEEK_CUR)
    if file.read(4) != _SEGMENT:
        return 0
    size, unknown = _ebml_size(file)
    return 0 if unknown else file.tell() + size


def _ebml_size(file: BinaryIO) -> tuple[int, bool]:
    """A size of variable length, and whether it means unknown."""
    first = file.read(1)
    if not first or not first[0]:
        return 0, True
    length = 9 - first[0].bit_length()
    value = int.from_bytes(bytes([first[0] ^ (1 << (8 - length))]) + file.read(length - 1), "big")
    return value, value == (1 << (7 * length)) - 1
