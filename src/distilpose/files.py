"""Writes files atomically. No dependency does it: none flushes to the disk before the rename and also respects the umask."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import logging
import math
import os
import re
import unicodedata
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePath
from typing import Any

from distilpose.errors import NOT_THE_PATH, DistilPoseError

log = logging.getLogger(__name__)


@contextlib.contextmanager
def atomic_write(path: str | Path) -> Iterator[Path]:
    """Yield a temporary file in the same folder. It is renamed to `path` if the block succeeds, and removed if it fails.

    The content is flushed to the disk before the rename, so that a power cut leaves either the old or the new file.

    Args:
        path: the file to write; missing parent folders are created.

    Raises:
        DistilPoseError: the folder or the file cannot be written.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.part{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        _to_disk(temporary)
        os.replace(temporary, path)
        with contextlib.suppress(OSError):  # some network disks cannot flush folders
            _to_disk(path.parent)
    except OSError as error:
        if error.errno in NOT_THE_PATH:
            raise
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        way = "free some space; the earlier file is unchanged" if full else "choose a folder you may write to"
        raise DistilPoseError(f"{path} cannot be written ({error.strerror or error}): {way}.") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def _to_disk(path: Path) -> None:
    """Flush a file or a folder to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def quarantine(file: Path, error: Exception) -> None:
    """Rename a damaged file of a run, so that the run continues without it, and log a warning."""
    renamed = file.with_name(f"{file.stem}.damaged{file.suffix}")
    file.replace(renamed)
    log.warning("%s is damaged (%s): renamed to %s.", file, error, renamed.name)


def natural_key(name: str | PurePath) -> tuple[Any, ...]:
    """Sort key of a path that orders numbers by value, as people count: frame_2 comes before frame_10.

    Case decides only between names that are otherwise equal, and so do leading zeros.
    """
    parts = [unicodedata.normalize("NFC", part) for part in PurePath(name).parts]
    keys = [re.split(r"(\d+)", part.casefold()) for part in parts]
    return [[int(piece) if odd % 2 else piece for odd, piece in enumerate(key)] for key in keys], parts


def sha256_of(file: str | Path) -> str:
    """SHA-256 of a file in hexadecimal. The file is read in parts."""
    digest = hashlib.sha256()  # hashlib.file_digest needs Python 3.11
    with open(file, "rb") as stream:
        while part := stream.read(1 << 20):
            digest.update(part)
    return digest.hexdigest()


def foreign_content(path: str | Path) -> str:
    """What a file is and what to do, if it is what a failed copy or download leaves; "" for any other content."""
    try:
        with open(path, "rb") as file:
            start = file.read(64)
    except OSError:
        return ""
    if not start:
        return "it is empty: copy or download it again"
    if start.startswith(b"version https://git-lfs"):
        return "it is a pointer of Git LFS: run git lfs pull in its repository"
    if start.lstrip(b"\xef\xbb\xbf \r\n\t").lower().startswith((b"<!doctype html", b"<html")):
        return "it is a web page, such as that of a login: download the file itself"
    return "it is packed by gzip: unpack it" if start.startswith(b"\x1f\x8b") else ""


def remove_parts(folder: str | Path) -> None:
    """Remove the temporary files of killed processes in a folder and its subfolders."""
    for part in Path(folder).rglob(".*.[0-9]*.part*"):
        part.unlink(missing_ok=True)


def remove_if_empty(folder: str | Path) -> None:
    """Remove an empty folder, and those of its parents inside the working directory that are then empty."""
    relative = os.path.relpath(folder)
    with contextlib.suppress(OSError):  # it is not empty
        (os.rmdir if relative.startswith("..") else os.removedirs)(relative)


def write_text(text: str, path: str | Path) -> Path:
    """Write a text file atomically."""
    with atomic_write(path) as temporary:
        temporary.write_text(text)
    return Path(path)


def write_json(content: Any, path: str | Path) -> Path:
    """Write JSON atomically: a list in one line, anything else indented.

    A number that is not finite becomes null, because not every JSON parser reads NaN.
    """
    return write_text(json.dumps(_finite(content), indent=None if isinstance(content, list) else 2), path)


def _finite(content: Any) -> Any:
    """Plain containers with None instead of numbers that are not finite."""
    if isinstance(content, Mapping):
        return {key: _finite(value) for key, value in content.items()}
    if isinstance(content, (list, tuple)):
        return [_finite(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content


def check_new_folder(folder: str | Path) -> Path:
    """Check that the `output` of a command does not exist or is an empty folder; return its path.

    Raises:
        DistilPoseError: the folder is not empty, or it is a file.
    """
    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise DistilPoseError(f"output={folder} exists and is not an empty folder: give a new one.")
    return folder
