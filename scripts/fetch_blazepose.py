"""Download BlazePose out of MediaPipe's wheel: `python scripts/fetch_blazepose.py pose_landmark_full.tflite`.

The wheel comes from PyPI by `pip download` (36 MB, Apache-2.0). One file is extracted and checked by SHA-256; MediaPipe
itself is not installed.
"""

from __future__ import annotations

import argparse
import hashlib
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from distilpose.errors import DistilPoseError
from distilpose.files import atomic_write, sha256_of

PACKAGE = "mediapipe==0.10.21"
MEMBER = "mediapipe/modules/pose_landmark/pose_landmark_full.tflite"
SHA256 = "e9a5c5cb17f736fafd4c2ec1da3b3d331d6edbe8a0d32395855aeb2cdfd64b9f"
# one wheel for every platform: the model is the same in all of them
WHEEL = ("--python-version=3.11", "--platform=manylinux_2_28_x86_64", "--only-binary=:all:")


def fetch(output: Path) -> bool:
    """Write the model to `output`.

    Returns:
        False if the file already exists.

    Raises:
        DistilPoseError: another file exists at `output`, or the wheel or its content is not available.
    """
    if output.exists():
        if output.is_file() and sha256_of(output) == SHA256:
            return False
        raise DistilPoseError(f"{output} exists and is not BlazePose: give another path, nothing is overwritten.")
    with tempfile.TemporaryDirectory() as folder, zipfile.ZipFile(download(Path(folder))) as wheel:
        content = wheel.read(MEMBER)
    digest = hashlib.sha256(content).hexdigest()
    if digest != SHA256:
        raise DistilPoseError(
            f"The model in {PACKAGE} has SHA-256 {digest[:12]}…, expected {SHA256[:12]}…: the wheel is not MediaPipe's; check "
            "pip's index and any proxy."
        )
    with atomic_write(output) as temporary:
        temporary.write_bytes(content)
    return True


def download(folder: Path) -> Path:
    """Download the wheel into a folder with pip."""
    command = [sys.executable, "-m", "pip", "download", PACKAGE, "--no-deps", "--dest", str(folder), *WHEEL]
    done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    wheels = list(folder.glob("*.whl"))
    if done.returncode or len(wheels) != 1:
        reason = (done.stderr.strip().splitlines() or ["no wheel was downloaded"])[-1]
        raise DistilPoseError(f"pip cannot download {PACKAGE} ({reason}): check the network and that pip is installed.")
    return wheels[0]


def main(arguments: list[str] | None = None) -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description="Download BlazePose (6 MB) out of MediaPipe's wheel on PyPI (36 MB).")
    parser.add_argument("output", type=Path, nargs="?", default=Path("pose_landmark_full.tflite"), help="file to write")
    output = parser.parse_args(arguments).output
    try:
        fetched = fetch(output)
    except (DistilPoseError, OSError) as error:
        sys.exit(f"error: {error}")
    print(f"{output}: {'done' if fetched else 'exists'}; use it by teacher=blazepose teacher.file={output}")


if __name__ == "__main__":
    main()
