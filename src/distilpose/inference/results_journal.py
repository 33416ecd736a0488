"""The journal of a prediction: the rows so far, from which an interrupted prediction is resumed."""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from distilpose.errors import DistilPoseError
from distilpose.files import sha256_of
from distilpose.inference.images import ImageFiles
from distilpose.inference.videos import Video
from distilpose.runs.config import flatten

NAME = "journal.jsonl"
# settings that do not change the poses, and may differ when a prediction resumes
_NOT_COMPARED = ("output", "resume", "device", "draw", "draw_threshold", "csv", "frames", "max_pixels")


class ResultsJournal:
    """The rows of every finished image, one line of JSON an image, after a line with the settings.

    Lines are appended as images are finished. An incomplete last line, after a kill or on a full disk, is dropped on resume.

    Args:
        folder: folder of the results.
        settings: settings that the results depend on, in plain containers.
        resume: whether to continue a journal in the folder.
        remember: whether appended rows are also kept in `rows`; False for a camera, whose rows would fill the memory.

    Attributes:
        rows: rows by the number of the image or frame.

    Raises:
        DistilPoseError: the folder is not empty and cannot be resumed, or its journal has other settings.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any], resume: bool, remember: bool = True) -> None:
        self.remember = remember
        self.path = folder / NAME
        self.rows: dict[int, list[dict[str, Any]]] = {}
        self._settings = json.loads(json.dumps(settings))
        occupied = folder.exists() and (not folder.is_dir() or any(folder.iterdir()))
        if occupied and not (resume and self.path.is_file()):
            way = "give a new one" + (", or resume it with resume=auto" if self.path.is_file() else "")
            raise DistilPoseError(f"output={folder} is not an empty folder and nothing is overwritten: {way}.")
        folder.mkdir(parents=True, exist_ok=True)
        if not (occupied and self._read()):
            self._append([{"settings": self._settings}])

    def add(self, finished: Sequence[tuple[int, list[dict[str, Any]]]]) -> None:
        """Append the numbers and rows of finished images.

        Raises:
            DistilPoseError: the journal cannot be written, as on a full disk.
        """
        self._append([{"number": number, "rows": rows} for number, rows in finished])
        if self.remember:
            self.rows.update(finished)

    def _append(self, lines: Sequence[Mapping[str, Any]]) -> None:
        try:
            with open(self.path, "a", encoding="utf-8") as file:
                file.write("".join(json.dumps(line) + "\n" for line in lines))
        except OSError as error:
            raise DistilPoseError(
                f"{self.path} cannot be written ({error.strerror}): free some space or restore access, then continue with "
                "resume=auto."
            ) from error

    def _read(self) -> bool:
        """Read the journal, and drop an incomplete last line. Returns whether the line with the settings is complete."""
        content = self.path.read_bytes()
        complete = content[: content.rfind(b"\n") + 1]
        if complete:
            try:
                first, *lines = [json.loads(line) for line in complete.splitlines()]
                recorded = flatten(first["settings"])
                self.rows = {int(line["number"]): list(line["rows"]) for line in lines}
            except (KeyError, TypeError, ValueError) as error:
                raise DistilPoseError(f"{self.path} is damaged ({error}): give a new output=FOLDER.") from None
            self._compare_settings(recorded)
        if len(complete) < len(content):
            os.truncate(self.path, len(complete))
        return bool(complete)

    def _compare_settings(self, before: Mapping[str, Any]) -> None:
        now = flatten(self._settings)
        old, new = before.get("source"), now.get("source")
        if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
            now["source"] = [self._as_recorded(*marks) for marks in zip(old, new, strict=True)]
        changes = [
            f"{key} was {_shorten(before.get(key))}, is {_shorten(now.get(key))}"
            for key in sorted(before.keys() | now.keys())
            if before.get(key) != now.get(key)
        ]
        if changes:
            raise DistilPoseError(
                f"{self.path.parent} has results with other settings ({'; '.join(changes)}): set them as they were, or give a "
                "new output=FOLDER."
            )

    def _as_recorded(self, old: list[Any], new: list[Any]) -> list[Any]:
        """The mark of an image, as far as the journal depends on it."""
        if old[:2] == new[:2] and new[1] not in self.rows:  # without rows its content may change: it could not be read
            return old
        # a journal of an earlier version has the file's name and the id
        return [Path(new[0]).name, new[1]] if len(old) == 2 else new


def image_marks(paths: Sequence[Path], ids: Mapping[Path, int]) -> list[list[Any]]:
    """What identifies each image of a source: path below their common folder, id, bytes, and CRC-32 of 4 KiB of its middle.

    The name alone would take 0001.jpg of one camera for 0001.jpg of another.
    """
    folder = os.path.commonpath([path.parent for path in paths]) if paths else "."
    marks: list[list[Any]] = []
    for path in paths:
        size = middle = None
        with (
            suppress(OSError),
            open(path, "rb") as file,
        ):  # an image that cannot be read is reported when its turn comes
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size // 2 - 2048))
            middle = zlib.crc32(file.read(4096))
        marks.append([Path(os.path.relpath(path, folder)).as_posix(), ids[path], size, middle])
    return marks


def _shorten(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) < 100 else text[:97] + "..."


def digest(path: str | Path | None) -> str | None:
    """A file's name and the first twelve digits of its SHA-256; None without a file."""
    return None if path is None else f"{Path(path).name} {sha256_of(path)[:12]}"


def compared_settings(cfg: DictConfig, source: ImageFiles | Video) -> dict[str, Any]:
    """The settings that results depend on, with digests instead of files."""
    settings: dict[str, Any] = OmegaConf.to_container(cfg, resolve=True)  # type: ignore[assignment]
    for name in _NOT_COMPARED:
        settings.pop(name)
    if cfg.first_frame is None:  # journals of earlier versions do not have it
        settings.pop("first_frame")
    detector = settings.pop("detector")
    detector.pop("device", None)
    settings["detector"] = {**detector, "file": digest(detector.get("file"))}
    settings.update({name: digest(cfg[name]) for name in ("boxes", "calibration")})
    if isinstance(source, ImageFiles):
        settings["source"] = image_marks(source.paths, source.ids)
    elif Path(str(cfg.source)).is_file():
        settings["source"] = digest(cfg.source)
    return settings
