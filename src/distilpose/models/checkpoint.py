"""Models to and from files: `.safetensors` written here, `.ckpt` written by training."""

from __future__ import annotations

import json
import math
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from distilpose.errors import DistilPoseError
from distilpose.files import atomic_write
from distilpose.models.model import PoseModel
from distilpose.models.registry import create_model
from distilpose.models.released import released_kind
from distilpose.models.remote import local_file

_METADATA_KEY = "distilpose"
_FORMAT = 1
_MODEL_PREFIX = "model."
# of a checkpoint whose training averaged the weights (EMA), and where Lightning keeps each
WEIGHTS = {"averaged": "state_dict", "raw": "current_model_state"}
# options of timm that name other files
ELSEWHERE = ("pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "checkpoint_path", "cache_dir")
# mmcv keeps its best score as a numpy number, under the name numpy 1 or numpy 2 gives its maker
_SCALAR = np.float64(0).__reduce__()[0]
_NUMPY_NUMBERS: list[Any] = [
    (_SCALAR, "numpy.core.multiarray.scalar"),
    (_SCALAR, "numpy._core.multiarray.scalar"),
    np.dtype,
    *{type(np.dtype(letter)) for letter in "?bhilqBHILQefd"},
]


def save_model(model: PoseModel, path: str | Path, overwrite: bool = False, padding: float | None = None) -> Path:
    """Write weights and configuration to one `.safetensors` file, beside and then renamed.

    Args:
        model: the model; `load_model` gives it back with its skeleton, input size, mean, std and `scores_trained`.
        path: ending in `.safetensors`.
        overwrite: whether a file of that name may be replaced.
        padding: the factor on boxes it was trained with, where that is known; see `saved_padding`.

    Returns:
        The path.

    Raises:
        DistilPoseError: if the path has another ending, exists, or cannot be written.
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        raise DistilPoseError(f"{path} must end in .safetensors, the format models are saved in.")
    if path.exists() and not overwrite:
        raise DistilPoseError(f"{path} exists and is not overwritten: choose another name or remove it first.")
    about = {"format": _FORMAT, "config": model.config, "mean": list(model.mean), "std": list(model.std)}
    about |= {} if padding is None else {"padding": padding}
    tensors = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    with atomic_write(path) as temporary:
        temporary.write_bytes(safetensors.torch.save(tensors, {_METADATA_KEY: json.dumps(about)}))
    return path


def load_model(path: str | Path, weights_kind: str = "averaged") -> PoseModel:
    """The model in a file of this package, in eval mode on the CPU.

    No file can run code: `.safetensors` holds numbers, and of a `.ckpt` only tensors and plain containers are read.

    Args:
        path: `.safetensors` written by `save_model` or `convert`, or a `.ckpt` written by training; or from elsewhere, a
            `.safetensors` that is fetched once: `owner/name` of the Hugging Face hub or an address with a digest, in the forms
            of `distilpose.models.remote.local_file`.
        weights_kind: "averaged" or "raw", of a checkpoint whose training averaged them (`callbacks=ema`). Any other file has
            one set of weights, which is taken either way.

    Raises:
        DistilPoseError: if the file is missing, unreadable, not this package's, or does not fit its own configuration.
    """
    if weights_kind not in tuple(WEIGHTS):  # a list cannot be looked up
        raise DistilPoseError(f"weights_kind={weights_kind} must be averaged or raw.")
    path = local_file(path)
    if path.suffix == ".onnx":
        raise DistilPoseError(
            f"{path} is an exported file: predict with it by python -m distilpose.runtime, and give the checkpoint here."
        )
    about, state = _read_safetensors(path) if path.suffix == ".safetensors" else _read_lightning(path, weights_kind)
    try:
        model = create_model(**_harmless(about["config"]))
        model.mean = tuple(map(float, about.get("mean", model.mean)))
        model.std = tuple(map(float, about.get("std", model.std)))
    except DistilPoseError as error:
        raise DistilPoseError(f"{path} describes a model this version cannot build: {error}") from error
    except (TypeError, KeyError, ValueError) as error:
        raise DistilPoseError(f"{path} describes a model this version cannot build ({error}).") from error
    fit_weights(model, state, path)
    return model.eval()


def _harmless(config: Mapping[str, Any]) -> dict[str, Any]:
    """A stranger's configuration without what would fetch or open other files: the weights are in this one."""
    options = config.get("backbone_options")
    if isinstance(options, Mapping):
        options = {key: value for key, value in options.items() if key not in ELSEWHERE}
    if ":" in str(config.get("backbone", "")):
        raise DistilPoseError(f"its backbone {config['backbone']} lies elsewhere: use one of timm's own names.")
    extra = {"backbone_options": options} if "backbone_options" in config else {}
    return {**config, **extra, "pretrained": False}


def fit_weights(model: PoseModel, state: Mapping[str, Tensor], source: str | Path) -> None:
    """Load weights into a model, every one of them, or say in one sentence why they do not fit.

    Args:
        model: changed in place.
        state: weights by the model's own names.
        source: where they come from, for the message.
    """
    own = model.state_dict()
    problems = {
        "missing": [name for name in own if name not in state],
        "unexpected": [name for name in state if name not in own],
        "of another shape": [name for name in own if name in state and own[name].shape != state[name].shape],
    }
    told = [
        f"{len(names)} {problem} ({', '.join(names[:3])}{', …' if len(names) > 3 else ''})"
        for problem, names in problems.items()
        if names
    ]
    if told:
        raise DistilPoseError(
            f"{source} does not fit {model.name} with {model.num_keypoints} keypoints and crops of "
            f"{model.input_size[0]} x {model.input_size[1]}: of its tensors {', '.join(told)}; "
            "is it the checkpoint of another model?"
        )
    model.load_state_dict(dict(state))


def read_torch_file(path: Path) -> Any:
    """`torch.load` of plain containers, numbers and tensors only, with its many failures told in a sentence."""
    try:
        with torch.serialization.safe_globals(_NUMPY_NUMBERS):
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if not _is_torch_file(path):
            raise DistilPoseError(f"{path} is no PyTorch file: give a .ckpt or .safetensors of a model.") from error
        raise DistilPoseError(
            f"{path} cannot be read safely: it is damaged, or holds objects besides tensors, numbers and plain "
            "containers; if you trust it, load it with torch.load(..., weights_only=False) and save its "
            "{'state_dict': ...} alone to a new file."
        ) from error
    except Exception as error:  # what a damaged file raises depends on where it is damaged
        reason = "it is truncated, damaged or no PyTorch file"
        raise DistilPoseError(f"{path} cannot be read: {reason}; copy or download it again.") from error


def _is_torch_file(path: Path) -> bool:
    """Whether it begins like one: a zip, or a pickle, which torch wrote before 1.6."""
    with open(path, "rb") as file:
        start = file.read(2)
    return start == b"PK" or start[:1] == b"\x80"


def saved_padding(path: Path) -> float | None:
    """The factor on boxes that `save_model` was told; None where it was not, and of other files."""
    try:
        with safe_open(path, framework="pt") as file:
            found = json.loads((file.metadata() or {}).get(_METADATA_KEY, "{}")).get("padding")
    except (SafetensorError, OSError, ValueError, AttributeError):
        return None
    return float(found) if isinstance(found, (int, float)) and 0 < found < math.inf else None


def _read_safetensors(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    try:
        with safe_open(path, framework="pt") as file:
            about = json.loads((file.metadata() or {}).get(_METADATA_KEY, "null"))
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    except (SafetensorError, OSError, ValueError) as error:
        raise DistilPoseError(f"{path} cannot be read: it is truncated or damaged ({error}).") from error
    if not isinstance(about, dict) or not isinstance(about.get("config"), dict):
        raise _foreign(path, state)
    if about.get("format") != _FORMAT:
        raise DistilPoseError(
            f"{path} has format {about.get('format')}, this version reads {_FORMAT}: update distilpose."
        )
    return about, state


def _read_lightning(path: Path, weights_kind: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    content = read_torch_file(path)
    content = content if isinstance(content, dict) else {}
    state = content.get(WEIGHTS[weights_kind], content.get("state_dict", content))
    config = (content.get("hyper_parameters") or {}).get("model")
    if not isinstance(config, dict) or not isinstance(state, dict):
        raise _foreign(path, state if isinstance(state, dict) else {})
    tensors = {
        name.removeprefix(_MODEL_PREFIX): value for name, value in state.items() if name.startswith(_MODEL_PREFIX)
    }
    return {"config": cast(dict[str, Any], config)}, tensors


def _foreign(path: Path, state: Mapping[Any, Any]) -> DistilPoseError:
    if released_kind(state):
        return DistilPoseError(
            f"{path} is a checkpoint in the released mmpose format: turn it into ours first by "
            f"python -m distilpose.convert source={path} model=NAME output=FILE.safetensors."
        )
    return DistilPoseError(f"{path} was not written by distilpose: give a .ckpt of its training or a .safetensors.")
