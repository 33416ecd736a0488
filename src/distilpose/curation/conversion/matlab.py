"""MATLAB files, read by scipy without running anything in them."""

from __future__ import annotations

import math
import struct
import zlib
from pathlib import Path
from typing import Any

from scipy.io import loadmat, whosmat

from distilpose.curation.parsing import parsing
from distilpose.errors import DistilPoseError

MOST_NUMBERS = 20_000_000
MOST_BYTES = 2**30  # unpacked; MPII's release is far below it
_HEAD, _COMPRESSED, _CHUNK = 128, 15, 2**20


def read_mat(path: Path, name: str) -> Any:
    """Variable of that name; its structures are objects with attributes.

    Raises:
        DistilPoseError: scipy cannot read the file (it reads up to version 7), or the variable is missing or huge.
    """
    with parsing(path, "a MATLAB file of version 7 or earlier (written by `save -v7`)"):
        _check_unpacked_size(path)
        sizes = {one: math.prod(shape) for one, shape, _ in whosmat(path)}  # unpacks only the headers
        if sizes.get(name, 0) > MOST_NUMBERS:
            raise DistilPoseError(
                f"{name!r} in {path} holds {sizes[name]} numbers: expected the labels of a set, at most {MOST_NUMBERS}."
            )
        content = loadmat(path, struct_as_record=False, squeeze_me=False, variable_names=[name])
    if name not in content:
        raise DistilPoseError(f"{path} has no variable {name!r}: give the file of the official release.")
    return content[name]


def _check_unpacked_size(path: Path) -> None:
    """Unpack the variables chunk by chunk and keep nothing: the header does not tell the size of a structure."""
    unpacked = 0
    with open(path, "rb") as file:
        head = file.read(_HEAD)
        if head[126:128] not in (b"IM", b"MI"):
            return  # version 4, which does not compress, or no MATLAB file
        tag = struct.Struct("<II" if head[126:128] == b"IM" else ">II")
        while len(start := file.read(tag.size)) == tag.size:
            kind, length = tag.unpack(start)
            if kind != _COMPRESSED:
                file.seek(length, 1)
                continue
            packed, unpacker = file.read(length), zlib.decompressobj()
            while packed and not unpacker.eof:
                unpacked += len(unpacker.decompress(packed, _CHUNK))
                packed = unpacker.unconsumed_tail
                if unpacked > MOST_BYTES:
                    raise DistilPoseError(
                        f"{path} unpacks to more than {MOST_BYTES >> 20} MiB: expected labels of a set."
                    )
