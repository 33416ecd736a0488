"""Untrusted archives of labels: files are written only inside the folder, and only up to a total size."""

from __future__ import annotations

import stat
import zipfile
from pathlib import Path

from distilpose.curation.image_files import leads_out
from distilpose.curation.parsing import parsing
from distilpose.errors import DistilPoseError

MAX_BYTES = 2 * 2**30
MAX_FILES = 200_000
_LABELS = (".mat", ".json", ".xml", ".txt", ".yaml", ".yml")


def unpack(path: Path, folder: Path) -> Path:
    """Unpack the label files of a zip into an empty folder; images in it are skipped.

    Raises:
        DistilPoseError: the zip is damaged or too large, or a member is a link or leads out of the folder.
    """
    with parsing(path, "a zip archive"), zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        for member in members:
            if leads_out(member.filename) or stat.S_ISLNK(member.external_attr >> 16):
                raise DistilPoseError(f"Archive {path} holds {member.filename[:80]!r}, which leads out of its folder.")
        labels = [one for one in members if not one.is_dir() and one.filename.lower().endswith(_LABELS)]
        # zipfile never unpacks a member beyond its stated size
        if len(members) > MAX_FILES or sum(member.file_size for member in labels) > MAX_BYTES:
            raise DistilPoseError(
                f"Archive {path} holds more than {MAX_FILES} files or more than {MAX_BYTES >> 30} GiB of labels: "
                "if you trust it, unpack it and give the folder."
            )
        for member in labels:
            archive.extract(member, folder)
    return folder
