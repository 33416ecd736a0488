"""Opens and checks an exported ONNX file; needs only onnxruntime and numpy."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distilpose.errors import NOT_THE_PATH, DistilPoseError
from distilpose.export_metadata import METADATA_KEY, parse_metadata
from distilpose.files import foreign_content

INPUT = "images"  # name of the graph's input


def read_file(file: str | Path) -> bytes:
    """Content of a file.

    Raises:
        DistilPoseError: the file cannot be read.
    """
    try:
        return Path(file).read_bytes()
    except OSError as error:
        if error.errno in NOT_THE_PATH:
            raise
        raise DistilPoseError(
            f"{file} cannot be read ({error.strerror}): give a file that exists and is readable."
        ) from None


def network_input(crops: NDArray[np.uint8], about: Mapping[str, Any]) -> NDArray:
    """Convert crops (N, H, W, 3) uint8 RGB to the input of an export.

    Unchanged if the graph normalises, else normalised (N, 3, H, W) float32.
    """
    if about["normalise"]:
        return np.ascontiguousarray(crops)
    mean, std = (np.asarray(about[key], dtype=np.float32) for key in ("mean", "std"))
    return np.ascontiguousarray(((crops.astype(np.float32) / 255 - mean) / std).transpose(0, 3, 1, 2))


def open_session(
    file: str | Path, threads: int | None = None, providers: Sequence[str] = ("CPUExecutionProvider",)
) -> tuple[Any, dict[str, Any]]:
    """An onnxruntime session of an exported file, and its metadata.

    Raises:
        DistilPoseError: the file cannot be read, is not an ONNX export of this package, or refers to other files; or
            onnxruntime is not installed.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise DistilPoseError(
            f"{file} needs onnxruntime, which cannot be imported ({error}): pip install onnxruntime."
        ) from error
    content = read_file(file)
    # Safety: a reference to another file could point anywhere on this machine, and exports have none. The key of a reference is
    # "location" after its length 8; in every encoding of the length, the last byte is at most 8.
    if re.search(rb"[\x00-\x08]location", content):
        raise DistilPoseError(
            f"{file} refers to weights in other files, which no export of distilpose does: it is not opened, export it again."
        )
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    if threads is not None:
        options.intra_op_num_threads = threads
    try:
        session = onnxruntime.InferenceSession(content, options, providers=list(providers))
    except Exception as error:  # onnxruntime's own exceptions have no common ancestor
        if foreign := foreign_content(file):
            raise DistilPoseError(f"{file} cannot be read: {foreign}.") from None
        reason = " ".join(str(error).split())[:200]
        raise DistilPoseError(
            f"{file} cannot be run by onnxruntime {onnxruntime.__version__} ({reason}): export it again, with a lower opset=… "
            "and ir_version=… if this onnxruntime is older than the file, or update onnxruntime."
        ) from None
    about = parse_metadata(session.get_modelmeta().custom_metadata_map.get(METADATA_KEY), file)
    height, width = about["input_size"]
    shape = [height, width, 3] if about["normalise"] else [3, height, width]
    inputs = [(value.name, list(value.shape[1:])) for value in session.get_inputs()]
    outputs = {value.name: list(value.shape[1:]) for value in session.get_outputs()}
    joints = len(about["skeleton"]["names"])
    if inputs != [(INPUT, shape)] or (outputs.get("keypoints"), outputs.get("scores")) != ([joints, 2], [joints]):
        raise DistilPoseError(f"{file} has other inputs or outputs than its metadata: export it again.")
    return session, about
