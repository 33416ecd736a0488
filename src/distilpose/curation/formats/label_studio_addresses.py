"""What the address of a Label Studio task says of the file it means."""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from distilpose.curation.formats.photographs import Wanted

_UPLOADED = re.compile(r"^[0-9a-f]{8}-")  # put before the name of an uploaded file


def address_of(task: dict[str, Any]) -> str:
    """Where the task's image lies, an empty text where it does not say."""
    data = task["data"] if isinstance(task.get("data"), dict) else {}
    texts = [value for value in data.values() if isinstance(value, str)]
    address = data.get("image") or data.get("img") or next((text for text in texts if "." in text), "")
    return address if isinstance(address, str) else ""


def meaning_of(address: str) -> Wanted:
    """The paths that an address can mean: an upload, a local file, a URL or a path, encoded for a URL or not."""
    try:
        parts = urlsplit(address)
    except ValueError:
        return Wanted([_below(address)])
    local = re.search(r"(?:^|&)d=([^&]+)", parts.query)
    decoded = parse_qs(parts.query).get("d", [])  # takes + for a space
    raw = local[1] if local else parts.path
    readings = [_below(one) for one in [*decoded, unquote(raw), raw, address.rpartition("://")[2]]]
    base = PurePosixPath(readings[0]).name
    uploaded = _UPLOADED.sub("", base)
    return Wanted(list(dict.fromkeys(readings)), uploaded=uploaded if uploaded != base else None)


def _below(path: str) -> str:
    """The path without drive, root and steps up, so that it can be looked for below a folder."""
    parts = re.sub(r"^[A-Za-z]:", "", path.replace("\0", "")).replace("\\", "/").split("/")
    return "/".join(part for part in parts if part not in ("", ".", "..")) or "."
