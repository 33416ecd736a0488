"""What a prediction has found so far, kept so that it can go on where it stopped."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from distilpose.errors import DistilPoseError
from distilpose.runs.config import flatten

NAME = "journal.jsonl"


class Journal:
    """The rows of every image that is done, one line of JSON an image, after a line with the settings.

    Lines are added as images are done. One that was cut off by a kill or a full disk is dropped when the work goes on.

    Args:
        folder: of the results.
        settings: plain containers; what the results depend on.
        resume: whether to go on with a journal that is there.
        remember: whether what is added is also kept in `rows`; a camera's would grow without end, and is never asked for.

    Attributes:
        rows: by the number of the image or frame, as it was read or added.

    Raises:
        DistilPoseError: the folder holds something and may not be gone on with, or was made with other settings.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any], resume: bool, remember: bool = True) -> None:
        self.remember = remember
        self.path = folder / NAME
        self.rows: dict[int, list[dict[str, Any]]] = {}
        self._settings = json.loads(json.dumps(settings))
        occupied = folder.exists() and (not folder.is_dir() or any(folder.iterdir()))
        if occupied and not (resume and self.path.is_file()):
            way = "give a new one" + (", or go on with resume=auto" if self.path.is_file() else "")
            raise DistilPoseError(f"output={folder} is not an empty folder and nothing is overwritten: {way}.")
        folder.mkdir(parents=True, exist_ok=True)
        if occupied:
            self._read()
        else:
            self._append([{"settings": self._settings}])

    def add(self, done: Sequence[tuple[int, list[dict[str, Any]]]]) -> None:
        """Images that are done together: their numbers and rows."""
        self._append([{"number": number, "rows": rows} for number, rows in done])
        if self.remember:
            self.rows.update(done)

    def _append(self, lines: Sequence[Mapping[str, Any]]) -> None:
        text = "".join(json.dumps(line) + "\n" for line in lines)
        try:
            with open(self.path, "a", encoding="utf-8") as file:
                file.write(text)
        except OSError as error:
            raise DistilPoseError(
                f"{self.path} cannot be written ({error.strerror}): free some space, and go on with resume=auto."
            ) from error

    def _read(self) -> None:
        content = self.path.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]
        try:
            first, *lines = [json.loads(line) for line in whole.splitlines()] or [{"settings": self._settings}]
            made_with = first["settings"]
            self.rows = {int(line["number"]): list(line["rows"]) for line in lines}
        except (ValueError, KeyError, TypeError) as error:
            raise DistilPoseError(f"{self.path} is damaged ({error}): give a new output=FOLDER.") from None
        before, now = flatten(made_with), flatten(self._settings)
        unlike = [
            f"{key} was {told(before.get(key))}, is {told(now.get(key))}"
            for key in sorted(before.keys() | now.keys())
            if before.get(key) != now.get(key)
        ]
        if unlike:
            raise DistilPoseError(
                f"{self.path.parent} was begun with other settings ({'; '.join(unlike)}): "
                "set them as they were, or give a new output=FOLDER."
            )
        if len(whole) < len(content):
            os.truncate(self.path, len(whole))
        if not whole:
            self._append([{"settings": self._settings}])


def told(value: Any) -> str:
    """A setting as short as it can be understood."""
    text = json.dumps(value)
    return text if len(text) < 100 else text[:97] + "..."


def digest(path: str | Path | None) -> str | None:
    """A file's name and twelve digits of its SHA-256; None without a file.

    Raises:
        DistilPoseError: it cannot be read.
    """
    if path is None:
        return None
    summed = hashlib.sha256()
    try:
        with open(path, "rb") as file:
            while part := file.read(1 << 20):
                summed.update(part)
    except OSError as error:
        raise DistilPoseError(f"'{path}' cannot be read ({error.strerror}): give a file that exists.") from error
    return f"{Path(path).name} {summed.hexdigest()[:12]}"
