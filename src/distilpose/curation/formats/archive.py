"""Archives of labels from strangers: nothing is written outside the folder, and no more than a limit."""

from __future__ import annotations

import lzma
import stat
import zipfile
import zlib
from pathlib import Path

from distilpose.curation.image_files import climbs_out
from distilpose.errors import DistilPoseError

MOST_BYTES = 2 * 2**30
MOST_FILES = 200_000
_LABELS = (".mat", ".json", ".xml", ".txt", ".yaml", ".yml")
_PIECE = 2**20
# damage is told by the packing that meets it; bz2 has no error of its own
_DAMAGED = (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, zlib.error, lzma.LZMAError, OSError)


def unpack(path: Path, folder: Path) -> Path:
    """Unpack the label files of a zip into an empty folder; images in it are passed over.

    Raises:
        DistilPoseError: it is no zip, a member's name leads out of the folder or is a link, or it unpacks to too much.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            _check(path, members)
            written = 0
            for member in members:
                if member.is_dir() or not member.filename.lower().endswith(_LABELS):
                    continue
                target = folder / member.filename
                target.parent.mkdir(parents=True, exist_ok=True)
                with archive.open(member) as packed, open(target, "xb") as file:
                    while piece := packed.read(_PIECE):  # the size it states may be a lie
                        written += len(piece)
                        if written > MOST_BYTES:
                            raise _too_large(path)
                        file.write(piece)
    except FileExistsError as error:
        raise DistilPoseError(
            f"Archive {path} holds a file twice ({Path(error.filename).name}): pack it again."
        ) from None
    except _DAMAGED as error:
        raise DistilPoseError(f"Archive {path} cannot be unpacked ({error}): write it as a plain zip.") from None
    return folder


def _check(path: Path, members: list[zipfile.ZipInfo]) -> None:
    for member in members:
        if climbs_out(member.filename) or stat.S_ISLNK(member.external_attr >> 16):
            raise DistilPoseError(
                f"Archive {path} holds {member.filename[:80]!r}, which leads out of its folder: it was not unpacked."
            )
    if len(members) > MOST_FILES or sum(member.file_size for member in members if _is_label(member)) > MOST_BYTES:
        raise _too_large(path)


def _is_label(member: zipfile.ZipInfo) -> bool:
    return member.filename.lower().endswith(_LABELS)


def _too_large(path: Path) -> DistilPoseError:
    return DistilPoseError(
        f"Archive {path} holds more than {MOST_FILES} files or unpacks to more than {MOST_BYTES >> 30} GiB of labels: "
        "unpack it yourself, if you trust it, and give the folder."
    )
