"""Reads what a W&B run logged from its file, without network or account.

W&B has no public reader for .wandb files: `wandb sync` uploads them, and the public API reads from the server.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from distilpose.errors import DistilPoseError

# LevelDB's log format after W&B's own header: records are split into parts, and no part crosses a block of 32 KiB
HEADER, BLOCK, PART = b":W&B", 32 * 1024, struct.Struct("<IHB")  # checksum, length, kind
FULL, FIRST, MIDDLE, LAST = 1, 2, 3, 4
NUMBER = "number"


@dataclass
class LoggedRun:
    """Content of a .wandb file.

    Attributes:
        name: display name.
        project: W&B project.
        group: W&B group, "" without one.
        job_type: W&B job type, "" without one.
        tags: W&B tags.
        config: nested configuration.
        history: rows of each key as (trainer/global_step or None, value); media are dicts with "_type".
        exit_code: None if the run was not closed.
    """

    name: str = ""
    project: str = ""
    group: str = ""
    job_type: str = ""
    tags: list[str] = field(default_factory=list)
    config: dict[str, Any] = field(default_factory=dict)
    history: dict[str, list[tuple[int | None, Any]]] = field(default_factory=dict)
    exit_code: int | None = None

    def kinds(self) -> dict[str, str]:
        """Type of each key: "number", "text", or W&B's type such as "images/separated", "histogram" or "table-file"."""
        return {key: kind_of(rows[-1][1]) for key, rows in sorted(self.history.items())}


def kind_of(value: Any) -> str:
    """Type of a logged value."""
    if isinstance(value, dict):
        return str(value.get("_type", "object"))
    # W&B writes a number that is not finite as text
    return NUMBER if isinstance(value, (int, float)) or value in ("NaN", "Infinity", "-Infinity") else "text"


def find_logged(place: str | Path) -> list[Path]:
    """Find the .wandb files below a run's folder, oldest first; a file is returned itself.

    Raises:
        DistilPoseError: there is no such file.
    """
    place = Path(place)
    files = [place] if place.is_file() else sorted(place.glob("**/*run-*/run-*.wandb"), key=_started)
    if not files:
        raise DistilPoseError(
            f"'{place}' holds no W&B run: give the folder of a run trained with logger=wandb, or a .wandb file."
        )
    return files


def _started(file: Path) -> str:
    """The time in the name of a W&B run's folder, such as offline-run-20260131_235959-abcdefgh."""
    return file.parent.name.partition("run-")[2]


def read_logged(file: str | Path) -> LoggedRun:
    """Read a .wandb file. If it is truncated, as after a kill, only its complete records are read.

    Raises:
        DistilPoseError: it is not a .wandb file.
    """
    from wandb.proto.wandb_internal_pb2 import Record  # type: ignore[attr-defined]  # created at import

    run = LoggedRun()
    for content in _records(Path(file)):
        record = Record()
        record.ParseFromString(content)
        _add_record(run, record)
    return run


def _add_record(run: LoggedRun, record: Any) -> None:
    """Add one record to the run."""
    kind = record.WhichOneof("record_type")
    if kind == "run":
        run.name, run.project, run.group = record.run.display_name, record.run.project, record.run.run_group
        run.job_type, run.tags = record.run.job_type, list(record.run.tags)
        _merge(run.config, record.run.config.update)
    elif kind == "config":
        _merge(run.config, record.config.update)
    elif kind == "history":
        row: dict[str, Any] = {}
        _merge(row, record.history.item)
        row = _dotted(row)
        step = row.pop("trainer/global_step", None)
        for key, value in row.items():
            if not key.startswith("_"):
                run.history.setdefault(key, []).append((step, value))
    elif kind == "exit":
        run.exit_code = record.exit.exit_code


def _merge(target: dict[str, Any], items: Any) -> None:
    """Put items into nested containers; a nested item has the keys of all its parents."""
    for item in items:
        *parents, last = item.nested_key or [item.key]
        container = target
        for name in parents:
            container = container.setdefault(name, {})
        container[last] = json.loads(item.value_json)


def _dotted(row: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested values as a dictionary with dotted keys; media are values."""
    flat: dict[str, Any] = {}
    for key, value in row.items():
        nested = isinstance(value, dict) and "_type" not in value
        flat.update(_dotted(value, f"{prefix}{key}.") if nested else {prefix + key: value})
    return flat


def _records(file: Path) -> Iterator[bytes]:
    """The complete records of a .wandb file, in order."""
    content = file.read_bytes()
    if not content.startswith(HEADER):
        raise DistilPoseError(
            f"'{file}' is not a .wandb file: give a run's folder, or the run-….wandb in its wandb folder."
        )
    place, record = len(HEADER) + 3, b""  # after a magic number and a version
    while place + PART.size <= len(content):
        left = BLOCK - place % BLOCK
        if left < PART.size:  # padding
            place += left
            continue
        _, length, kind = PART.unpack_from(content, place)
        place += PART.size
        part = content[place : place + length]
        if len(part) < length or kind not in (FULL, FIRST, MIDDLE, LAST):
            return  # truncated, or preallocated and not yet written
        place += length
        record = part if kind in (FULL, FIRST) else record + part
        if kind in (FULL, LAST):
            yield record
