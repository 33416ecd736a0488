"""Download COCO 2017 keypoints from its own site: `python scripts/download_coco.py --root data/coco`.

Existing files are skipped, and an interrupted download resumes where it stopped, which `torch.hub` cannot do: the largest
archive has 19 GB. Each archive is checked by size and SHA-256 before it is opened, and no file has its final name before
it is complete.
"""

from __future__ import annotations

import argparse
import errno
import hashlib
import http.client
import shutil
import sys
import tempfile
import time
import urllib.error
import urllib.request
import zipfile
from pathlib import Path
from typing import NamedTuple

from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import TransferSpeedColumn as SpeedColumn

# http, because the site's https has the certificate of its storage provider; the digests below verify the content
SITE = "http://images.cocodataset.org"
CHUNK = 1 << 20
TIMEOUT = 30.0  # seconds without data
ATTEMPTS = 5  # consecutive failed attempts before the script gives up
DELAY = 1.0  # seconds before the second attempt; longer before later ones
COLUMNS = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), SpeedColumn(), TimeRemainingColumn())
DETECTIONS = "person_detection_results/COCO_val2017_detections_AP_H_56_person.json"


class Archive(NamedTuple):
    """A zip file of the site.

    Attributes:
        address: path on the site.
        size: bytes.
        sha256: hexadecimal digest.
        holds: files or folders to extract, relative to the root.
    """

    address: str
    size: int
    sha256: str
    holds: tuple[str, ...]

    @property
    def name(self) -> str:
        """File name."""
        return Path(self.address).name


PARTS = {
    "annotations": Archive(
        "annotations/annotations_trainval2017.zip",
        252_907_541,
        "113a836d90195ee1f884e704da6304dfaaecff1f023f49b6ca93c4aaae470268",
        ("annotations/person_keypoints_train2017.json", "annotations/person_keypoints_val2017.json"),
    ),
    "val": Archive(
        "zips/val2017.zip",
        815_585_330,
        "4f7e2ccb2866ec5041993c9cf2a952bbed69647b115d0f74da7ce8f4bef82f05",
        ("val2017",),
    ),
    "train": Archive(
        "zips/train2017.zip",
        19_336_861_798,
        "69a8bb58ea5f8f99d24875f21416de2e9ded3178e903f1f7603e283b9e06d929",
        ("train2017",),
    ),
}


class FetchError(Exception):
    """A failed download or a wrong archive; the message says what to do."""


def fetch(archive: Archive, root: Path, site: str = SITE) -> bool:
    """Download and unpack an archive, if any of its content is missing in `root`.

    A zip file with the archive's name in `root` is used and kept. A downloaded one is removed after unpacking.

    Args:
        archive: the archive.
        root: folder of the data set.
        site: address of the site.

    Returns:
        False if nothing was missing.

    Raises:
        FetchError: no network, no space, or an archive with other content.
    """
    if all((root / name).exists() for name in archive.holds):
        return False
    root.mkdir(parents=True, exist_ok=True)
    existing, partial = root / archive.name, root / f"{archive.name}.part"
    with Progress(*COLUMNS) as progress:
        if existing.is_file():
            check(archive, existing, progress)
            unpack(archive, existing, root, progress)
            return True
        download(archive, f"{site}/{archive.address}", partial, progress)
        try:
            check(archive, partial, progress)
        except FetchError:
            partial.unlink()
            raise
        unpack(archive, partial, root, progress)
        partial.unlink()
    return True


def download(archive: Archive, url: str, partial: Path, progress: Progress) -> None:
    """Download the rest of an archive; `partial` holds its first bytes."""
    if size_of(partial) > archive.size:
        partial.unlink()
    have = size_of(partial)
    needed, free = archive.size - have + archive.size, shutil.disk_usage(partial.parent).free
    if free < needed:
        raise FetchError(
            f"{archive.name} and its content need {needed / 1e9:.1f} GB, but {partial.parent} has {free / 1e9:.1f} GB "
            "free: free some space, or give another folder with --root."
        )
    bar = progress.add_task(f"{archive.name}: fetching", total=archive.size, completed=have)
    failures = 0
    while (have := size_of(partial)) < archive.size:
        try:
            receive(archive, url, partial, have, progress, bar)
            reason = "the connection was closed early"
        except urllib.error.HTTPError as error:
            raise FetchError(f"{url} returned {error.code} {error.reason}: try again later.") from None
        except (OSError, http.client.HTTPException) as error:
            if getattr(error, "errno", None) == errno.ENOSPC or getattr(error, "filename", None) is not None:
                raise  # an error of the disk, not of the network
            reason = str(getattr(error, "reason", error) or type(error).__name__)
        now = size_of(partial)
        failures = 0 if now > have else failures + 1
        if failures == ATTEMPTS:
            raise FetchError(
                f"{url} cannot be downloaded ({reason}): check the network and run this again; the {now:,} of "
                f"{archive.size:,} bytes downloaded so far are kept."
            )
        if now < archive.size:
            time.sleep(min(2**failures - 1, 8) * DELAY)


def receive(archive: Archive, url: str, partial: Path, have: int, progress: Progress, bar: TaskID) -> None:
    """Request the bytes after the first `have`, and append them. A server without range requests sends all bytes."""
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    with urllib.request.urlopen(request, timeout=TIMEOUT) as response:
        start = have if response.status == http.HTTPStatus.PARTIAL_CONTENT else 0
        length = response.headers.get("Content-Length")
        if length is not None and start + int(length) != archive.size:
            raise FetchError(
                f"{url} has {start + int(length):,} bytes, expected {archive.size:,}: this is not the archive of COCO "
                "2017, so check whether a proxy responds instead of the site."
            )
        with partial.open("ab" if start else "wb") as file:
            progress.update(bar, completed=start)
            while chunk := response.read(CHUNK):
                file.write(chunk)
                progress.advance(bar, len(chunk))


def check(archive: Archive, path: Path, progress: Progress) -> None:
    """Check size and digest of an archive."""
    advice = "it is damaged or another file; remove it and run this again."
    if size_of(path) != archive.size:
        raise FetchError(f"{path} has {size_of(path):,} bytes, expected {archive.size:,}: {advice}")
    digest = hashlib.sha256()
    bar = progress.add_task(f"{archive.name}: checking", total=archive.size)
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
            progress.advance(bar, len(chunk))
    if digest.hexdigest() != archive.sha256:
        raise FetchError(f"{path} has SHA-256 {digest.hexdigest()[:12]}…, expected {archive.sha256[:12]}…: {advice}")


def unpack(archive: Archive, path: Path, root: Path, progress: Progress) -> None:
    """Extract the missing content into a temporary folder, and rename it."""
    missing = tuple(name for name in archive.holds if not (root / name).exists())
    with tempfile.TemporaryDirectory(prefix=".unpacking-", dir=root) as temporary, zipfile.ZipFile(path) as packed:
        members = [member for member in packed.infolist() if belongs(member.filename, missing)]
        bar = progress.add_task(f"{archive.name}: unpacking", total=sum(m.file_size for m in members))
        for member in members:
            packed.extract(member, temporary)
            progress.advance(bar, member.file_size)
        for name in missing:
            extracted = Path(temporary, name)
            if not extracted.exists():
                raise FetchError(
                    f"{path} does not contain {name}: it is another archive; remove it and run this again."
                )
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            extracted.rename(root / name)


def belongs(member: str, names: tuple[str, ...]) -> bool:
    """Whether a member of an archive is one of these files or in one of these folders."""
    return any(member == name or member.startswith(f"{name}/") for name in names)


def size_of(path: Path) -> int:
    """Size of a file in bytes; 0 if it does not exist."""
    return path.stat().st_size if path.exists() else 0


def main(arguments: list[str] | None = None) -> None:
    """Run the script."""
    parser = argparse.ArgumentParser(
        description="Download COCO 2017 keypoints: 0.25 GB annotations, 0.8 GB val, 19 GB train."
    )
    parser.add_argument("--root", type=Path, default=Path("data/coco"), help="folder to fill (default: data/coco)")
    parser.add_argument(
        "--parts", nargs="+", choices=PARTS, default=list(PARTS), help="what to download (default: all)"
    )
    parser.add_argument("--site", default=SITE, help=f"a mirror with the same layout (default: {SITE})")
    options = parser.parse_args(arguments)
    try:
        for part in options.parts:
            fetched = fetch(PARTS[part], options.root, options.site.rstrip("/"))
            print(f"{part}: {'done' if fetched else 'exists'} ({', '.join(PARTS[part].holds)})")
    except FetchError as error:
        sys.exit(f"error: {error}")
    except OSError as error:
        sys.exit(
            f"error: {error.filename or options.root} cannot be written ({error.strerror}): give another folder with "
            "--root."
        )
    except KeyboardInterrupt:
        sys.exit("Interrupted: run this again to resume.")
    if not (options.root / DETECTIONS).exists():
        print(
            f"\nNot on the COCO site: {Path(DETECTIONS).name}, the detector boxes of the papers.\n"
            "The READMEs of microsoft/human-pose-estimation.pytorch and leoxiaobin/deep-high-resolution-net.pytorch\n"
            f"link to it; put it at {options.root / DETECTIONS}. Only protocol=detections and protocol=all need it."
        )


if __name__ == "__main__":
    main()
