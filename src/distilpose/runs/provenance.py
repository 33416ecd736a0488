"""Records versions, devices, the commit of the code, and digests of the files that a run learns from.

Lightning does not record these; its loggers only record settings.
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
FIRST_WEIGHTS = ("weights", "model.pretrained")
CHECKOUT = Path(__file__).resolve().parents[3]  # not a git checkout if the package was installed from a wheel


def environment() -> dict[str, Any]:
    """Versions of Python and of the packages that affect results, the devices, and the commit of the code.

    Returns:
        python, platform, cuda and cudnn (None without them), gpus (names of the visible ones), packages by name, and git
        (result of `code_version`).
    """
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: text for name in PACKAGES if (text := _version(name)) is not None},
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
        "gpus": [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())],
        "git": code_version(),
    }


def code_version(folder: Path = CHECKOUT) -> dict[str, Any] | None:
    """The commit of a git checkout, and whether tracked files differ from it.

    Args:
        folder: root of the checkout.

    Returns:
        commit and dirty; None if the folder is not the root of a checkout, or git is not installed.
    """
    if not (folder / ".git").exists():  # an installed package may be inside a checkout of another project
        return None
    commit, changes = _git(folder, "rev-parse", "HEAD"), _git(folder, "status", "--porcelain", "--untracked-files=no")
    if not commit or changes is None:
        return None
    return {"commit": commit, "dirty": bool(changes)}


def source_files(config: Mapping[str, Any], resumes: bool = False) -> dict[str, Path]:
    """The files of a teacher and of the first weights, by the setting that names them, such as teacher_checkpoint.

    For a recording, which is a folder, the file is its recording.json.

    Args:
        config: nested configuration of the run.
        resumes: whether the run resumes, and reads no first weights.
    """
    first = () if resumes else FIRST_WEIGHTS
    texts = {key: value for key, value in flatten(config).items() if isinstance(value, str)}
    named = {key: Path(value) for key, value in texts.items() if key in first or key.startswith("teacher.")}
    files = {key: path / "recording.json" if path.is_dir() else path for key, path in named.items()}
    return {key.replace(".", "_"): file for key, file in files.items() if file.is_file()}


def digests(files: Mapping[str, str | Path]) -> dict[str, dict[str, str]]:
    """Path and SHA-256 (hexadecimal) of each file, by its role in the run."""
    return {role: {"file": str(file), "sha256": sha256_of(file)} for role, file in files.items()}


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _git(folder: Path, *arguments: str) -> str | None:
    """The output of a git command; None if it fails."""
    try:
        return subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=30, check=True
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
