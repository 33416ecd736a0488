"""Models from elsewhere: the Hugging Face hub, and addresses with a digest. Only `.safetensors`, which cannot run code."""

from __future__ import annotations

import hashlib
import re
from http.client import HTTPException
from pathlib import Path
from urllib.error import URLError
from urllib.parse import urldefrag, urlsplit
from urllib.request import urlopen

import torch
from rich.progress import Progress

from distilpose.errors import DistilPoseError
from distilpose.files import atomic_write, sha256_of

WEIGHTS_FILE = "model.safetensors"  # of a repository on the hub, and of a folder that `share` wrote
LIMIT = 8 << 30  # bytes; no model of this package comes near it
TIMEOUT = 30  # seconds without an answer
_HUB_NAME = re.compile(r"(?:hf://)?([\w.-]+/[\w.-]+?)(?:@([\w./-]+))?")
_FILES = (".ckpt", ".safetensors", ".pth", ".pt", ".onnx")


def local_file(source: str | Path) -> Path:
    """The file of a model on this machine, fetched first if it lies elsewhere.

    Args:
        source: a path; a folder with a `model.safetensors`; `owner/name` or `owner/name@revision` of the Hugging Face hub, if
            there is no folder `owner` here (`hf://owner/name` anyway); or `https://…/file.safetensors#sha256=DIGEST`.

    Raises:
        DistilPoseError: there is no such thing, it cannot be fetched, or it is not what the digest says.
    """
    text = str(source)
    if text.startswith(("https:", "http:")):
        return _of_address(text)
    path = Path(text)
    if path.is_file():
        return path
    if (path / WEIGHTS_FILE).is_file():
        return path / WEIGHTS_FILE
    if path.is_dir():
        raise DistilPoseError(
            f"{text} holds no {WEIGHTS_FILE}: give a shared folder, or a .ckpt of a run's checkpoints/."
        )
    named = _HUB_NAME.fullmatch(text)
    meant_here = path.parent.is_dir() and not text.startswith("hf:")
    if not named or meant_here or text.endswith(_FILES):
        raise DistilPoseError(
            f"{text} is not a file: give a .ckpt or .safetensors written by distilpose, owner/name of the Hugging Face hub, "
            "or https://…/file.safetensors#sha256=DIGEST."
        )
    return _of_hub(named[1], named[2])


def _of_hub(name: str, revision: str | None) -> Path:
    """From the hub's cache, or the hub."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError, RepositoryNotFoundError

    try:
        return Path(hf_hub_download(name, WEIGHTS_FILE, revision=revision, library_name="distilpose"))
    except RepositoryNotFoundError as error:
        why = "it has no such repository, or one that is private (hf auth login)"
        raise DistilPoseError(f"'{name}' is no file here, and the Hugging Face hub says that {why}.") from error
    except (
        Exception
    ) as error:  # by its version the client raises errors of two HTTP libraries, its own and the system's
        if isinstance(error, LocalEntryNotFoundError):
            why = "it cannot be reached, and nothing of that name was fetched before"
        elif isinstance(error, EntryNotFoundError):
            why = f"it has no {WEIGHTS_FILE} there"
        else:
            why = " ".join(str(error).split())[:200].rstrip(".")
        raise DistilPoseError(f"'{name}' is no file here, and the Hugging Face hub does not give it: {why}.") from error


def _of_address(address: str) -> Path:
    """From our cache, or the address; either way it is what the digest says."""
    place, fragment = urldefrag(address)
    wanted = fragment.removeprefix("sha256=").lower()
    if not re.fullmatch("[0-9a-f]{64}", wanted) or not urlsplit(place).path.endswith(".safetensors"):
        raise DistilPoseError(
            f"{address} must be of the form https://…/file.safetensors#sha256=DIGEST with the digest's 64 hexadecimal digits, "
            "which the one who shares the file tells you (sha256sum FILE)."
        )
    kept = Path(torch.hub.get_dir()) / "distilpose" / f"{wanted}.safetensors"
    if kept.is_file() and sha256_of(kept) == wanted:
        return kept
    with atomic_write(kept) as temporary:
        try:
            found = _download(place, temporary)
        except (URLError, HTTPException, ConnectionError, TimeoutError, ValueError) as error:
            raise DistilPoseError(
                f"{place} cannot be fetched ({error}): check the address and the connection, or fetch the file yourself."
            ) from error
        if found != wanted:
            raise DistilPoseError(
                f"{place} has SHA-256 {found}, not {wanted}: it is another file, or was changed, and is not kept."
            )
    return kept


def _download(address: str, file: Path) -> str:
    """Fetch into a file, with a progress bar; gives the SHA-256."""
    found, size = hashlib.sha256(), 0
    with urlopen(address, timeout=TIMEOUT) as answer, file.open("wb") as output, Progress(transient=True) as progress:
        told = int(answer.headers.get("Content-Length") or 0)
        bar = progress.add_task(urlsplit(address).path.rpartition("/")[2], total=told or None)
        while part := answer.read(1 << 20):
            size += len(part)
            if size > LIMIT:
                raise ValueError(f"it is larger than {LIMIT >> 30} GiB")
            found.update(part)
            output.write(part)
            progress.advance(bar, len(part))
    if told and size < told:
        raise ValueError(f"it ended after {size:,} of {told:,} bytes")
    return found.hexdigest()
