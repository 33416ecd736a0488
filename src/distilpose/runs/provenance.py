"""What a run was made with: versions, devices, the code's commit, and digests of the files it learns from.

Ours, as Lightning records none of these, and its loggers only settings.
"""

from __future__ import annotations

import platform
import subprocess
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from distilpose.files import sha256_of
from distilpose.runs.config import flatten

PACKAGES = ("distilpose", "torch", "torchvision", "lightning", "timm", "numpy", "albumentations", "wandb")
CHECKOUT = Path(__file__).resolve().parents[3]  # of an installed wheel, this is no checkout


def environment() -> dict[str, Any]:
    """Versions of Python and of the packages that decide figures, the devices, and the code's commit.

    Returns:
        python, platform, cuda and cudnn (None without), gpus (names of those visible), packages by name, and git as
        `code_version` gives it.
    """
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: found for name in PACKAGES if (found := _version(name)) is not None},
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
        "gpus": [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())],
        "git": code_version(),
    }


def code_version(folder: Path = CHECKOUT) -> dict[str, Any] | None:
    """The commit of a git checkout, and whether tracked files differ from it.

    Args:
        folder: top of the checkout.

    Returns:
        commit and dirty; None where the folder is not the top of a checkout, or git is not installed.
    """
    if not (folder / ".git").exists():  # an installed package may lie inside a checkout of something else
        return None
    commit, changes = _git(folder, "rev-parse", "HEAD"), _git(folder, "status", "--porcelain", "--untracked-files=no")
    if not commit or changes is None:
        return None
    return {"commit": commit, "dirty": bool(changes)}


def teacher_files(config: Mapping[str, Any]) -> dict[str, Path]:
    """The files of a teacher and of the first weights, by the setting that names them, such as teacher_checkpoint.

    A recording is a folder, which its recording.json stands for.

    Args:
        config: of the run, nested.
    """
    named = {key: value for key, value in flatten(config).items() if isinstance(value, str)}
    places = {key: Path(value) for key, value in named.items() if key == "weights" or key.startswith("teacher.")}
    files = {key: place / "recording.json" if place.is_dir() else place for key, place in places.items()}
    return {key.replace(".", "_"): file for key, file in files.items() if file.is_file()}


def digests(files: Mapping[str, str | Path]) -> dict[str, dict[str, str]]:
    """Name and SHA-256 (hexadecimal) of each file, by the role of the file in the run."""
    return {role: {"file": str(file), "sha256": sha256_of(file)} for role, file in files.items()}


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _git(folder: Path, *words: str) -> str | None:
    """The output of a git command; None where it fails."""
    try:
        return subprocess.run(
            ["git", "-C", str(folder), *words], capture_output=True, text=True, timeout=30, check=True
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
