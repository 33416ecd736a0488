"""Addresses of images in tasks of Label Studio."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from distilpose.curation.conversion.image_lookup import ImageReference
from distilpose.errors import DistilPoseError
from distilpose.inference.images import SUFFIXES

_SUFFIXES = (*SUFFIXES, ".gif", ".heic", ".heif", ".avif", ".jfif", ".jpe")
_UPLOADED = re.compile(r"^[0-9a-f]{8}-")  # prefix that Label Studio adds to the name of an uploaded file


def addresses_of(task: dict[str, Any]) -> dict[str, list[str]]:
    """Addresses of the task's images by their key in its data: one, or one for each page."""
    data = task["data"] if isinstance(task.get("data"), dict) else {}
    lists = {str(key): value if isinstance(value, list) else [value] for key, value in data.items()}
    texts = {key: value for key, value in lists.items() if value and all(isinstance(one, str) for one in value)}
    images = {key: value for key, value in texts.items() if any(map(_is_image, value)) or key in ("image", "img")}
    if images:
        return {key: value for key, value in images.items() if all(value)}
    return dict([pair for pair in texts.items() if "." in pair[1][0]][:1])


def keys_of_tags(tags: Sequence[str], keys: Sequence[str], chosen: Mapping[str, str], file: Path) -> dict[str, str]:
    """The key in the tasks' data that each <Image> tag shows, by their names.

    The export does not state it. With one key it is certain; otherwise names that are equal, or of which one contains the
    other beside words such as image, belong together, and the last tag belongs to the last key.

    Args:
        tags: names of the tags that regions were drawn on (`to_name`).
        keys: keys of images.
        chosen: keys of some tags, as the user states them.
        file: the export, for the message.

    Raises:
        DistilPoseError: several keys fit a tag, or none.
    """
    if len(keys) <= 1:
        return dict.fromkeys(tags, keys[0] if keys else "")
    found = {tag: key for tag, key in chosen.items() if key in keys}
    for fits in (str.__eq__, lambda tag, key: _bare(tag) == _bare(key), _contains):
        for tag in tags:
            free = [key for key in keys if key not in found.values() and fits(tag, key)]
            if tag not in found and len(free) == 1:
                found[tag] = free[0]
    missing = [tag for tag in tags if tag not in found]
    free = [key for key in keys if key not in found.values()]
    if len(missing) == len(free) == 1:
        found[missing[0]] = free[0]
    elif missing and len(tags) == 1:  # the only tag that was drawn on, among pictures beside it
        found[missing[0]] = next((key for key in ("image", "img") if key in keys), "")
    unknown = [tag for tag in tags if not found.get(tag)]
    if unknown:
        raise DistilPoseError(
            f"{file} has several images in a task ({', '.join(keys)}), and does not state which one the tag {unknown[0]!r} "
            f'shows: give --image-tag {unknown[0]}=KEY, with a key of these, as in the labelling interface (value="$KEY").'
        )
    return found


def _is_image(address: str) -> bool:
    return any(reading.lower().endswith(_SUFFIXES) for reading in parse_address(address).readings)


def _bare(name: str) -> str:
    """A name without case, separators and words such as image."""
    return re.sub(r"image|img|photo|picture|pic|view|url|[^a-z0-9]", "", name.lower())


def _contains(tag: str, key: str) -> bool:
    one, other = _bare(tag), _bare(key)
    return bool(one and other) and (one in other or other in one)


def parse_address(address: str) -> ImageReference:
    """Paths that an address can mean: an upload, a local file, a URL or a path, URL-encoded or not."""
    try:
        parts = urlsplit(address)
    except ValueError:
        return ImageReference([_relative(address)])
    local = re.search(r"(?:^|&)d=([^&]+)", parts.query)
    decoded = parse_qs(parts.query).get("d", [])  # reads + as a space
    raw = local[1] if local else parts.path
    readings = [_relative(one) for one in [*decoded, unquote(raw), raw, address.rpartition("://")[2]]]
    base = PurePosixPath(readings[0]).name
    uploaded = _UPLOADED.sub("", base)
    return ImageReference(list(dict.fromkeys(readings)), uploaded=uploaded if uploaded != base else None)


def _relative(path: str) -> str:
    """The path without drive, root and "..", for a search below a folder."""
    parts = re.sub(r"^[A-Za-z]:", "", path.replace("\0", "")).replace("\\", "/").split("/")
    return "/".join(part for part in parts if part not in ("", ".", "..")) or "."
