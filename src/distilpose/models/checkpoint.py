"""Saving and loading models: `.safetensors` written here, `.ckpt` written by training."""

from __future__ import annotations

import hashlib
import json
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from distilpose.errors import NOT_THE_PATH, DistilPoseError, first_line
from distilpose.files import atomic_write, foreign_content
from distilpose.models.factory import create_model
from distilpose.models.model import PoseModel
from distilpose.models.prediction_settings import prediction_settings, restore_settings, valid_padding
from distilpose.models.released import released_kind
from distilpose.models.remote import local_file

_METADATA_KEY = "distilpose"
_FORMAT = 1
_MODEL_PREFIX = "model."
# where Lightning keeps the two sets of weights of a training with weight averaging (EMA)
WEIGHTS = {"averaged": "state_dict", "raw": "current_model_state"}
WeightsKind = Literal["averaged", "raw"]
# options of timm that name other files
_OTHER_FILES = ("pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "checkpoint_path", "cache_dir")
# mmcv stores its best score as a numpy number, whose constructor has another name in numpy 1 than in numpy 2
_SCALAR = np.float64(0).__reduce__()[0]
_NUMPY_NUMBERS: list[Any] = [
    (_SCALAR, "numpy.core.multiarray.scalar"),
    (_SCALAR, "numpy._core.multiarray.scalar"),
    np.dtype,
    *{type(np.dtype(letter)) for letter in "?bhilqBHILQefd"},
]


def save_model(
    model: PoseModel, path: str | Path, overwrite: bool = False, padding: float | None = None, half: bool = False
) -> Path:
    """Write weights and configuration to one `.safetensors` file, atomically, and return its path.

    Args:
        model: the model; `load_model` restores it with everything that decides a prediction (`prediction_settings`).
        path: the file, ending in `.safetensors`.
        overwrite: whether an existing file may be replaced.
        padding: the factor on boxes that it was trained with; by default the model's own, which may be unknown.
        half: write float16, which halves the file; `load_model` returns float32 of the rounded weights.

    Raises:
        DistilPoseError: the path has another suffix, exists, or cannot be written, or a weight is too large for float16.
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        raise DistilPoseError(f"{path} must end in .safetensors, the format of saved models.")
    if path.exists() and not overwrite:
        raise DistilPoseError(f"{path} exists and is not overwritten: choose another name or remove it first.")
    metadata = {"format": _FORMAT, "config": model.config, **prediction_settings(model)}
    metadata |= {} if padding is None else {"padding": padding}
    # copies, as a network may use a tensor under several names, which the format does not allow
    tensors = {name: value.detach().to("cpu", copy=True).contiguous() for name, value in model.state_dict().items()}
    if half:
        tensors = {name: value.half() if value.is_floating_point() else value for name, value in tensors.items()}
        if large := [name for name, value in tensors.items() if not value.isfinite().all()]:
            raise DistilPoseError(
                f"{large[0]} of {model.name} has values that float16 cannot hold: save it with half=false."
            )
    with atomic_write(path) as temporary:
        temporary.write_bytes(safetensors.torch.save(tensors, {_METADATA_KEY: json.dumps(metadata)}))
    return path


def load_model(path: str | Path, weights_kind: WeightsKind = "averaged") -> PoseModel:
    """Load a model from a file of this package, in eval mode on the CPU.

    No file can run code: `.safetensors` holds numbers, and only tensors and plain containers are read from a `.ckpt`.

    Args:
        path: `.safetensors` written by `save_model` or `convert`, or a `.ckpt` written by training; or the name or address of
            a `.safetensors` to download once, in the forms of `distilpose.models.remote.local_file`.
        weights_kind: "averaged" or "raw" weights of a checkpoint whose training averaged them (`callbacks=ema`). Other files
            have one set of weights, and it is ignored.

    Raises:
        DistilPoseError: the file is missing, unreadable, not this package's, or does not fit its own configuration.
    """
    path = local_file(path)
    if path.suffix == ".onnx":
        raise DistilPoseError(
            f"{path} is an exported file: give the checkpoint, or predict with the file by python -m distilpose.runtime."
        )
    metadata, state = _read_safetensors(path) if path.suffix == ".safetensors" else _read_lightning(path, weights_kind)
    try:
        # files of earlier versions state what the network expects outside of its configuration
        normalisation: dict[str, Any] = {key: metadata[key] for key in ("mean", "std") if key in metadata}
        model = create_model(**(normalisation | _without_other_files(metadata["config"])))
        restore_settings(model, metadata)
    except MemoryError:  # says nothing about the file
        raise
    except Exception as error:  # the type depends on what is wrong with the file's configuration
        raise DistilPoseError(
            f"{path} describes a model that this version cannot build ({first_line(error)}): update distilpose."
        ) from error
    fit_weights(model, state, path)
    return model.eval()


def _without_other_files(config: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration from an untrusted file without options that download or open other files."""
    options = config.get("backbone_options")
    if isinstance(options, Mapping):
        options = {key: value for key, value in options.items() if key not in _OTHER_FILES}
    if ":" in str(config.get("backbone", "")):
        raise ValueError(f"backbone {config['backbone']} is not a name of timm's networks")
    extra = {"backbone_options": options} if "backbone_options" in config else {}
    return {**config, **extra, "pretrained": False}


def fit_weights(model: PoseModel, state: Mapping[str, Tensor], source: str | Path) -> None:
    """Load all weights of a model, or raise an error that names those that do not fit.

    Args:
        model: changed in place.
        state: weights by the model's names.
        source: their file, for the error message.
    """
    try:
        model.load_state_dict(dict(state))
    except RuntimeError as error:
        raise DistilPoseError(
            f"{source} does not fit {model.name} with {model.num_keypoints} keypoints and crops of "
            f"{model.input_size[0]} x {model.input_size[1]}: is it the checkpoint of another model? "
            f"({textwrap.shorten(str(error), 200)})"
        ) from error


def read_torch_file(path: Path, mmap: bool = False) -> Any:
    """`torch.load` of plain containers, numbers and tensors only. With `mmap`, tensors are read when they are used.

    Raises:
        DistilPoseError: the file cannot be opened, or is damaged.
    """
    try:
        with torch.serialization.safe_globals(_NUMPY_NUMBERS):
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    except MemoryError:  # says nothing about the file
        raise
    except Exception as error:  # the type depends on where the file is damaged
        if isinstance(error, OSError) and (error.filename is not None or error.errno in NOT_THE_PATH):
            raise _unopened(path, error) from error  # without a name, torch could not find its way in the file
        if foreign := foreign_content(path):
            raise DistilPoseError(f"{path} cannot be read: {foreign}.") from error
        raise DistilPoseError(
            f"{path} cannot be read: it is truncated, damaged, not a PyTorch file, or holds objects other than tensors, "
            "numbers and plain containers. Copy it again, or save its {'state_dict': ...} alone to a new file."
        ) from error


def weights_digest(model: PoseModel) -> str:
    """SHA-256 of a model's weights, the same in every format of its file."""
    return sha256_of_weights(model.state_dict())


def sha256_of_weights(weights: Mapping[str, Tensor]) -> str:
    """SHA-256 of tensors by name, in float32."""
    digest = hashlib.sha256()
    for name, value in sorted(weights.items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().float().contiguous().numpy().tobytes())
    return digest.hexdigest()


def saved_padding(path: Path) -> float | None:
    """The factor on boxes that a `.safetensors` or a `.ckpt` states; None if it states none, and for other files."""
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, framework="pt") as file:
                metadata = json.loads((file.metadata() or {}).get(_METADATA_KEY, "{}"))
        else:
            metadata = _lightning_metadata(read_torch_file(path, mmap=True))
        return valid_padding(metadata.get("padding"))
    except (SafetensorError, OSError, ValueError, AttributeError):
        return None


def _read_safetensors(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    try:
        path.open("rb").close()  # safetensors tells every system error as a missing file
    except OSError as error:
        raise _unopened(path, error) from error
    try:
        with safe_open(path, framework="pt") as file:
            metadata = json.loads((file.metadata() or {}).get(_METADATA_KEY, "null"))
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    except (SafetensorError, OSError, ValueError) as error:
        reason = foreign_content(path) or "it is truncated or damaged: copy or download it again"
        raise DistilPoseError(f"{path} cannot be read: {reason}.") from error
    if not isinstance(metadata, dict) or not isinstance(metadata.get("config"), dict):
        raise _foreign_file(path, state)
    if metadata.get("format") != _FORMAT:
        raise DistilPoseError(
            f"{path} has format {metadata.get('format')}, but this version reads format {_FORMAT}: update distilpose."
        )
    return metadata, state


def _read_lightning(path: Path, weights_kind: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    content = read_torch_file(path)
    content = content if isinstance(content, dict) else {}
    state = content.get(WEIGHTS[weights_kind], content.get("state_dict", content))
    metadata = _lightning_metadata(content)
    if not isinstance(metadata.get("config"), dict) or not isinstance(state, dict):
        raise _foreign_file(path, state if isinstance(state, dict) else {})
    tensors = {
        name.removeprefix(_MODEL_PREFIX): value for name, value in state.items() if name.startswith(_MODEL_PREFIX)
    }
    return metadata, tensors


def _lightning_metadata(content: Any) -> dict[str, Any]:
    """The metadata of a `.ckpt` in the form of a `.safetensors`; without "config" for other files."""
    settings = content.get("hyper_parameters") if isinstance(content, dict) else None
    if not isinstance(settings, dict):
        return {}
    prediction = settings.get("prediction")
    return {**(prediction if isinstance(prediction, dict) else {}), "config": settings.get("model")}


def _unopened(path: Path, error: OSError) -> Exception:
    """The error to raise for a file that the system does not open."""
    if error.errno in NOT_THE_PATH:
        return error
    return DistilPoseError(
        f"{path} cannot be opened ({error.strerror or first_line(error)}): give a file that may be read."
    )


def _foreign_file(path: Path, state: Mapping[Any, Any]) -> DistilPoseError:
    if released_kind(state):
        return DistilPoseError(
            f"{path} is a checkpoint in the released mmpose format: convert it by python -m distilpose.convert "
            f"source={path} model=NAME output=FILE.safetensors."
        )
    return DistilPoseError(f"{path} was not written by distilpose: give a .ckpt of its training or a .safetensors.")
