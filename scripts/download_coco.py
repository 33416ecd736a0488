"""Fetch COCO 2017 keypoints from its own site: `python scripts/download_coco.py --root data/coco`.

What is there already is skipped, a download that broke off goes on where it stopped, every archive is checked by size
and SHA-256 before it is opened, and nothing stands under its final name before it is complete.
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

# plain http: the site answers https with the certificate of its storage provider, so the digests below vouch for it
SITE = "http://images.cocodataset.org"
CHUNK = 1 << 20
TIMEOUT = 30.0  # seconds without a byte
ATTEMPTS = 5  # in a row that bring nothing new
DELAY = 1.0  # seconds before the second of them; the next ones wait longer
COLUMNS = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), SpeedColumn(), TimeRemainingColumn())
DETECTIONS = "person_detection_results/COCO_val2017_detections_AP_H_56_person.json"


class Archive(NamedTuple):
    """A zip file of the site.

    Attributes:
        address: below the site.
        size: bytes.
        sha256: hexadecimal digest.
        holds: files or folders to take out of it, relative to the root; the archive's others are left in it.
    """

    address: str
    size: int
    sha256: str
    holds: tuple[str, ...]

    @property
    def name(self) -> str:
        """The file's."""
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
    """What went wrong and the way out, in one sentence."""


def fetch(archive: Archive, root: Path, site: str = SITE) -> bool:
    """Make sure that `root` holds what the archive holds.

    A zip file of the archive's name that lies in `root` is used and left there; one that is downloaded here is removed
    once it is unpacked.

    Args:
        archive: what to fetch.
        root: folder of the data set.
        site: what the archive's address is below.

    Returns:
        False if everything was there already.

    Raises:
        FetchError: no network, no space, or an archive that is not what it should be.
    """
    if all((root / name).exists() for name in archive.holds):
        return False
    root.mkdir(parents=True, exist_ok=True)
    own, partial = root / archive.name, root / f"{archive.name}.part"
    with Progress(*COLUMNS) as progress:
        if own.is_file():
            check(archive, own, progress)
            unpack(archive, own, root, progress)
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
    """Bring `partial` to the archive's size, from wherever it stands."""
    have = size_of(partial)
    if have > archive.size:
        partial.unlink()
        have = 0
    needed, free = archive.size - have + archive.size, shutil.disk_usage(partial.parent).free
    if free < needed:
        raise FetchError(
            f"{archive.name} and what it holds need {needed / 1e9:.1f} GB but {partial.parent} has {free / 1e9:.1f} GB "
            "free: make room, or give another folder with --root."
        )
    bar = progress.add_task(f"{archive.name}: fetching", total=archive.size, completed=have)
    failures = 0
    while (have := size_of(partial)) < archive.size:
        try:
            receive(archive, url, partial, have, progress, bar)
            reason = "the connection was closed early"
        except urllib.error.HTTPError as error:
            raise FetchError(f"{url} answered {error.code} {error.reason}: try again later.") from None
        except (OSError, http.client.HTTPException) as error:
            if getattr(error, "errno", None) == errno.ENOSPC or getattr(error, "filename", None) is not None:
                raise  # the disk, not the network
            reason = str(getattr(error, "reason", error) or type(error).__name__)
        now = size_of(partial)
        failures = 0 if now > have else failures + 1
        if failures == ATTEMPTS:
            raise FetchError(
                f"{url} cannot be fetched ({reason}): check the network and run this again; the {now:,} of "
                f"{archive.size:,} bytes fetched so far are kept."
            )
        if now < archive.size:
            time.sleep(min(2**failures - 1, 8) * DELAY)


def receive(archive: Archive, url: str, partial: Path, have: int, progress: Progress, bar: TaskID) -> None:
    """One request for the bytes from `have` on, written as they come; a server that knows no ranges sends all."""
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:
        start = have if answer.status == http.HTTPStatus.PARTIAL_CONTENT else 0
        length = answer.headers.get("Content-Length")
        if length is not None and start + int(length) != archive.size:
            raise FetchError(
                f"{url} holds {start + int(length):,} bytes where {archive.size:,} were expected: this is not the "
                "archive of COCO 2017; is a proxy answering in its place?"
            )
        with partial.open("ab" if start else "wb") as file:
            progress.update(bar, completed=start)
            while chunk := answer.read(CHUNK):
                file.write(chunk)
                progress.advance(bar, len(chunk))


def check(archive: Archive, path: Path, progress: Progress) -> None:
    """Raise unless the file has the archive's size and digest."""
    advice = "it is damaged or another file; remove it and run this again."
    if size_of(path) != archive.size:
        raise FetchError(f"{path} has {size_of(path):,} bytes where {archive.size:,} were expected: {advice}")
    digest = hashlib.sha256()
    bar = progress.add_task(f"{archive.name}: checking", total=archive.size)
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
            progress.advance(bar, len(chunk))
    if digest.hexdigest() != archive.sha256:
        raise FetchError(
            f"{path} has SHA-256 {digest.hexdigest()[:12]}… where {archive.sha256[:12]}… is expected: {advice}"
        )


def unpack(archive: Archive, path: Path, root: Path, progress: Progress) -> None:
    """Take out what the root lacks, in a folder beside, then rename."""
    lacking = tuple(name for name in archive.holds if not (root / name).exists())
    with tempfile.TemporaryDirectory(prefix=".unpacking-", dir=root) as beside, zipfile.ZipFile(path) as packed:
        members = [member for member in packed.infolist() if belongs(member.filename, lacking)]
        bar = progress.add_task(f"{archive.name}: unpacking", total=sum(m.file_size for m in members))
        for member in members:
            packed.extract(member, beside)
            progress.advance(bar, member.file_size)
        for name in lacking:
            made = Path(beside, name)
            if not made.exists():
                raise FetchError(f"{path} holds no {name}: it is another archive; remove it and run this again.")
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            made.rename(root / name)


def belongs(member: str, wanted: tuple[str, ...]) -> bool:
    """Whether a member of an archive is one of the wanted files or lies in one of the wanted folders."""
    return any(member == name or member.startswith(f"{name}/") for name in wanted)


def size_of(path: Path) -> int:
    """Bytes of a file; 0 if there is none."""
    return path.stat().st_size if path.exists() else 0


def main(arguments: list[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(
        description="Fetch COCO 2017 keypoints: 0.25 GB annotations, 0.8 GB val, 19 GB train."
    )
    parser.add_argument("--root", type=Path, default=Path("data/coco"), help="folder to fill (default: data/coco)")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), help="what to fetch (default: all)")
    parser.add_argument("--site", default=SITE, help=f"a mirror with the same layout (default: {SITE})")
    given = parser.parse_args(arguments)
    try:
        for part in given.parts:
            fetched = fetch(PARTS[part], given.root, given.site.rstrip("/"))
            print(f"{part}: {'done' if fetched else 'there already'} ({', '.join(PARTS[part].holds)})")
    except FetchError as error:
        sys.exit(f"error: {error}")
    except OSError as error:
        sys.exit(
            f"error: Cannot write {error.filename or given.root} ({error.strerror}): give another folder with --root."
        )
    except KeyboardInterrupt:
        sys.exit("Stopped: run this again to go on from here.")
    if not (given.root / DETECTIONS).exists():
        print(
            f"\nNot on the COCO site: {Path(DETECTIONS).name}, the detector boxes papers evaluate with.\n"
            "The READMEs of microsoft/human-pose-estimation.pytorch and leoxiaobin/deep-high-resolution-net.pytorch\n"
            f"link to it; put it at {given.root / DETECTIONS}. Only protocol=detections and protocol=all need it."
        )


if __name__ == "__main__":
    main()
