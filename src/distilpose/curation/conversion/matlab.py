"""MATLAB files, read by scipy."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

from scipy.io import loadmat

from distilpose.curation.parsing import parsing
from distilpose.errors import DistilPoseError

MAX_BYTES = 2**30  # unpacked; MPII's release needs far less
_HEAD, _COMPRESSED, _CHUNK = 128, 15, 2**20


def read_mat(path: Path, name: str) -> Any:
    """Variable of that name; its structures are objects with attributes.

    Raises:
        DistilPoseError: scipy cannot read the file (it reads up to version 7), the variable is missing, or the file is huge.
    """
    with parsing(path, "a MATLAB file of version 7 or earlier (written by `save -v7`)"):
        _check_unpacked_size(path)
        content = loadmat(path, struct_as_record=False, squeeze_me=False, variable_names=[name])
    if name not in content:
        raise DistilPoseError(f"{path} has no variable {name!r}: give the file of the official release.")
    return content[name]


def _check_unpacked_size(path: Path) -> None:
    """Unpack the variables chunk by chunk to add up their size, which the header of a structure does not state."""
    unpacked = 0
    with open(path, "rb") as file:
        head = file.read(_HEAD)
        if head[126:128] not in (b"IM", b"MI"):
            return  # version 4, which does not compress, or not a MATLAB file
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
                if unpacked > MAX_BYTES:
                    raise DistilPoseError(
                        f"{path} unpacks to more than {MAX_BYTES >> 20} MiB: expected labels of a set."
                    )
