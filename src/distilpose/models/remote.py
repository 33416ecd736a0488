"""Downloads of model files, from the Hugging Face hub or from an address with a digest.

Only `.safetensors` are downloaded, which cannot run code.
"""

from __future__ import annotations

import re
import urllib.error
import urllib.request
from collections.abc import Sequence
from http.client import HTTPException
from pathlib import Path
from urllib.parse import urldefrag, urlsplit

import torch

from distilpose.errors import DistilPoseError, first_line
from distilpose.files import sha256_of

WEIGHTS_FILE = "model.safetensors"  # in a repository on the hub, and in a folder written by `share`
_HUB_NAME = re.compile(r"(?:hf://)?([\w.-]+/[\w.-]+?)(?:@([\w./-]+))?")
_FILES = (".ckpt", ".safetensors", ".pth", ".pt", ".onnx")


def local_file(source: str | Path) -> Path:
    """The local file of a model, downloaded first if necessary.

    Args:
        source: a path; a folder with a `model.safetensors`; `owner/name` or `owner/name@revision` of the Hugging Face hub, if
            there is no local folder `owner` (`hf://owner/name` in any case); or `https://…/file.safetensors#sha256=DIGEST`.

    Raises:
        DistilPoseError: there is no such file, it cannot be downloaded, or its digest differs.
    """
    text = str(source)
    if text.startswith(("https:", "http:")):
        return _from_address(text)
    path = Path(text)
    if path.is_file():
        return path
    if (path / WEIGHTS_FILE).is_file():
        return path / WEIGHTS_FILE
    name = _HUB_NAME.fullmatch(text)
    is_local = path.parent.is_dir() and not text.startswith("hf:")
    if not name or is_local or text.endswith(_FILES):
        raise DistilPoseError(
            f"{text!r} is not a model file: give a .ckpt or .safetensors written by distilpose, a folder with a "
            f"{WEIGHTS_FILE}, owner/name of the Hugging Face hub, or https://…/file.safetensors#sha256=DIGEST."
        )
    return _from_hub(name[1], name[2])


def _from_hub(name: str, revision: str | None) -> Path:
    """Download the file from the hub, or take it from the hub's cache."""
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(name, WEIGHTS_FILE, revision=revision, library_name="distilpose"))
    except Exception as error:  # errors of the client, of its HTTP library (which differs by version) and of the system
        raise DistilPoseError(
            f"'{name}' is no local file, and its {WEIGHTS_FILE} could not be downloaded from the Hugging Face hub "
            f"({first_line(error)}): check the name and the connection; private repositories need `hf auth login`."
        ) from error


def local_folder(source: str | Path, files: Sequence[str], revision: str | None = None) -> Path:
    """The local folder of a model: `source` itself, or files of a repository, downloaded first if necessary.

    Without a network, and with HF_HUB_OFFLINE, the hub's cache is used.

    Args:
        source: a folder; `owner/name` or `owner/name@revision` of the Hugging Face hub, if there is no local folder `owner`
            (`hf://owner/name` in any case).
        files: patterns of the files to download, such as model-*.safetensors; no other is.
        revision: branch, tag or commit; None: the one in `source`, or else the main branch.

    Returns:
        The folder. That of a repository is called like its commit.

    Raises:
        DistilPoseError: there is no such folder, or the files are neither cached nor can be downloaded.
    """
    from huggingface_hub import constants, snapshot_download

    text, path = str(source), Path(source)
    if path.is_dir():
        return path
    name = _HUB_NAME.fullmatch(text)
    is_local = path.parent.is_dir() and not text.startswith("hf:")
    if not name or is_local or text.endswith(_FILES):
        raise DistilPoseError(f"{text!r} is no folder: give a model's folder, or owner/name of the Hugging Face hub.")
    offline = "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else unreachable_hub()
    try:
        folder = snapshot_download(
            name[1], revision=revision or name[2], allow_patterns=list(files), library_name="distilpose",
            local_files_only=offline is not None,
        )  # fmt: skip
    except Exception as error:  # errors of the client, of its HTTP library (which differs by version) and of the system
        at = f" at {revision or name[2]}" if revision or name[2] else ""
        if offline is not None:
            raise DistilPoseError(
                f"'{name[1]}'{at} is no local folder and not in the cache of the Hugging Face hub, and {offline}: connect to "
                "the network, or give a model's folder."
            ) from error
        raise DistilPoseError(
            f"'{name[1]}'{at} is no local folder, and could not be downloaded from the Hugging Face hub "
            f"({first_line(error)}): check the name and the connection; private repositories need `hf auth login`."
        ) from error
    return Path(folder)


def unreachable_hub() -> str | None:
    """Why the Hugging Face hub cannot be reached; None if it can.

    Its client retries for a minute without a network, and for much longer behind a firewall; this takes 5 seconds at most.
    """
    from huggingface_hub import constants

    try:
        urllib.request.urlopen(constants.ENDPOINT, timeout=5).close()
    except urllib.error.HTTPError:
        pass  # a server that answers with an error is reachable
    except OSError as error:
        return f"{constants.ENDPOINT} is unreachable ({first_line(error)})"
    return None


def _from_address(address: str) -> Path:
    """Download the file to torch's cache, or take it from there. Its digest is checked in both cases."""
    url, fragment = urldefrag(address)
    digest = fragment.removeprefix("sha256=").lower()
    if not re.fullmatch("[0-9a-f]{64}", digest) or not urlsplit(url).path.endswith(".safetensors"):
        raise DistilPoseError(
            f"{address} must have the form https://…/file.safetensors#sha256=DIGEST, with the 64 hexadecimal digits of the "
            "digest (sha256sum FILE) from whoever shares the file."
        )
    file = Path(torch.hub.get_dir()) / "distilpose" / f"{digest}.safetensors"
    if file.is_file() and sha256_of(file) == digest:
        return file
    file.parent.mkdir(parents=True, exist_ok=True)
    try:
        torch.hub.download_url_to_file(url, str(file), hash_prefix=digest)
    except (OSError, HTTPException, RuntimeError) as error:  # a RuntimeError names both digests
        raise DistilPoseError(
            f"{url} cannot be downloaded ({first_line(error)}): check the address, its digest and the connection, or download "
            "the file yourself."
        ) from error
    return file
