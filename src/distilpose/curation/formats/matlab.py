"""MATLAB files, read by scipy without running anything in them."""

from __future__ import annotations

import math
import struct
import zlib
from pathlib import Path
from typing import Any

from scipy.io import loadmat, whosmat

from distilpose.errors import DistilPoseError

MOST_NUMBERS = 20_000_000
MOST_BYTES = 2**30  # unpacked; MPII's release is far below it
_HEAD, _COMPRESSED, _PIECE = 128, 15, 2**20


def read_mat(path: Path, name: str) -> Any:
    """The variable of that name; its structures as objects with attributes.

    Raises:
        DistilPoseError: it is no MATLAB file that scipy reads (up to version 7), or has no such variable, or a huge one.
    """
    try:
        _refuse_bombs(path)
        sizes = {one: math.prod(shape) for one, shape, _ in whosmat(path)}  # unpacks no more than the heads
        if sizes.get(name, 0) > MOST_NUMBERS:
            raise DistilPoseError(f"{name!r} in {path} holds {sizes[name]} numbers: expected {MOST_NUMBERS} or fewer.")
        content = loadmat(path, struct_as_record=False, squeeze_me=False, variable_names=[name])
    except NotImplementedError:
        raise DistilPoseError(f"{path} is a MATLAB 7.3 file: save it by `save -v7` in MATLAB or Octave.") from None
    except DistilPoseError:
        raise
    except Exception as error:  # damaged files make scipy's reader fail in any way
        raise DistilPoseError(
            f"{path} is no MATLAB file that can be read ({type(error).__name__}): fetch it again."
        ) from None
    if name not in content:
        raise DistilPoseError(f"{path} has no variable {name!r}: give the file of the official release.")
    return content[name]


def _refuse_bombs(path: Path) -> None:
    """Unpack the variables piece by piece, and keep nothing: what a structure unpacks to is not in its head."""
    unpacked = 0
    with open(path, "rb") as file:
        head = file.read(_HEAD)
        if head[126:128] not in (b"IM", b"MI"):
            return  # of version 4, which does not compress, or no MATLAB file
        tag = struct.Struct("<II" if head[126:128] == b"IM" else ">II")
        while len(start := file.read(tag.size)) == tag.size:
            kind, length = tag.unpack(start)
            packed, unpacker = file.read(length) if kind == _COMPRESSED else b"", zlib.decompressobj()
            if kind != _COMPRESSED:
                file.seek(length, 1)
            while packed and not unpacker.eof:
                unpacked += len(unpacker.decompress(packed, _PIECE))
                packed = unpacker.unconsumed_tail
                if unpacked > MOST_BYTES:
                    raise DistilPoseError(
                        f"{path} unpacks to more than {MOST_BYTES >> 20} MiB: expected a set's labels."
                    )
