"""Addresses of images in tasks of Label Studio."""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from distilpose.curation.conversion.image_lookup import ImageReference

_UPLOADED = re.compile(r"^[0-9a-f]{8}-")  # prefix that Label Studio adds to the name of an uploaded file


def address_of(task: dict[str, Any]) -> str:
    """Address of the task's image, empty if it has none."""
    data = task["data"] if isinstance(task.get("data"), dict) else {}
    texts = [value for value in data.values() if isinstance(value, str)]
    address = data.get("image") or data.get("img") or next((text for text in texts if "." in text), "")
    return address if isinstance(address, str) else ""


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
