"""Convert released mmpose checkpoints to files of this package, and back.

python -m distilpose.convert source=RELEASED.pth model=student_s output=FILE.safetensors
python -m distilpose.convert source=FILE.safetensors output=RELEASED.pth reverse=true
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from distilpose.cli.command import command
from distilpose.cli.validate_settings import Group
from distilpose.errors import DistilPoseError
from distilpose.files import atomic_write
from distilpose.models import PoseModel, create_model, list_models, load_model, model_spec, save_model
from distilpose.models.checkpoint import WeightsKind, fit_weights, read_torch_file
from distilpose.models.released import POSITIONS, from_released, to_released
from distilpose.models.remote import local_file

_TOLERANCE = 1e-5
RELEASED_PADDING = 1.25  # factor on boxes in mmpose's top-down pipelines, the release's included


class ConvertSettings:
    """Settings of the command.

    Attributes:
        source: the released mmpose .pth; with reverse=true a .safetensors or .ckpt of this package.
        output: the .safetensors to write; with reverse=true the .pth.
        reverse: whether to convert from this package to the released format.
        weights_kind: weights to take from a .ckpt whose training averaged them (callbacks=ema).
    """

    source: str | Path
    output: str | Path
    reverse: bool
    weights_kind: WeightsKind
    model: Group | None
    loss: Group | None
    method: Group | None


def convert_released(source: Path, output: Path, name: str, **options: Any) -> PoseModel:
    """Write a released checkpoint as `.safetensors` and report how each of its tensors was used.

    The number of joints and a teacher's hidden width are read from the file; see `from_released` for the names.

    Args:
        source: an mmpose file, `{'meta', 'state_dict', 'optimizer'}`, student or teacher.
        output: the `.safetensors` to write; must not exist.
        name: registry name of the network in the file.
        **options: options for `create_model`.

    Returns:
        The model written.

    Raises:
        DistilPoseError: the file is not a released one, is of another model, or holds an unknown name.
    """
    state = _read_released(source)
    weights, tables = from_released(state)
    tokens = weights.get("encoder.keypoint_tokens")
    options |= {"pretrained": False, "num_keypoints": None if tokens is None else tokens.shape[1]}
    # the release's hidden width is an eighth of the map's cells, which is 2 D at 256 x 192 only
    hidden = weights.get("head.hidden.weight")
    if hidden is not None and "hidden_dim" in model_spec(name).options:
        options["hidden_dim"] = options.get("hidden_dim") or len(hidden)
    model = create_model(name, **options)
    fit_weights(model, weights, source)
    notes = [f"  {table}: {_compare_positions(value, model, source)}" for table, value in tables.items()]
    save_model(model, output, padding=RELEASED_PADDING)
    print(f"{source}: {len(state)} tensors, {len(weights)} of them loaded into {model.name}, {len(tables)} not:")
    print("\n".join(notes or [f"  (no {POSITIONS} in the file: the sine table is computed here)"]))
    print(f"written to {output}")
    if model.kind == "student" and model.scores_trained:
        print("  the file does not state whether its scores were trained: if not, pass +model.scores_trained=false")
    return model


def convert_to_released(source: Path, output: Path, weights_kind: WeightsKind = "averaged") -> None:
    """Write a model of this package as a released-format `.pth`: `{'meta', 'state_dict'}` with the released names.

    Args:
        source: a `.safetensors` or `.ckpt` of this package.
        output: the `.pth` to write; must not exist.
        weights_kind: as in `load_model`.
    """
    model = load_model(source, weights_kind)
    state = to_released(model)
    with atomic_write(output) as temporary:
        torch.save({"meta": {"converted_from": f"distilpose {model.name}"}, "state_dict": state}, temporary)
    print(f"{source}: {model.name}, {len(state)} tensors written to {output} with their released names")
    print(f"  {POSITIONS}: the sine table is computed here, and is a tensor of the released format")


def _read_released(source: Path) -> Mapping[str, Tensor]:
    content = read_torch_file(source)
    state = content.get("state_dict") if isinstance(content, dict) else None
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise DistilPoseError(
            f"{source} has no 'state_dict' of tensors: a released checkpoint is {{'meta', 'state_dict', 'optimizer'}}."
        )
    return state


def _compare_positions(table: Tensor, model: PoseModel, source: Path) -> str:
    assert model.encoder is not None  # every released network has one
    positions = model.encoder.positions
    if table.shape != positions.shape:
        raise DistilPoseError(
            f"{source} has a table of {tuple(table.shape)} positions and {model.name} one of {tuple(positions.shape)}: give "
            "the crop size of its training by model.input_size=[H,W]."
        )
    difference = (table.to(positions.dtype) - positions).abs().max().item()
    if difference > _TOLERANCE:
        raise DistilPoseError(
            f"{source} was trained with other positions than the fixed sine table (largest difference {difference:.2g}), so "
            "its outputs cannot be reproduced: nothing was written."
        )
    return f"the fixed sine table, computed here; largest difference {difference:.1g}"


@command("convert", ConvertSettings)
def main(cfg: DictConfig) -> None:
    """Convert a checkpoint in the direction that `reverse` gives."""
    output = Path(cfg.output)
    source = local_file(cfg.source) if cfg.reverse else Path(cfg.source)
    if not source.is_file():
        raise DistilPoseError(f"source={source} is not a file: give the checkpoint to convert.")
    if output.exists():
        raise DistilPoseError(f"output={output} exists and is not overwritten: choose another name or remove it first.")
    if cfg.reverse:
        convert_to_released(source, output, cfg.weights_kind)
        return
    if "model" not in cfg:
        raise DistilPoseError(f"convert needs model=NAME, the network in {source}: one of {', '.join(list_models())}.")
    options: Any = OmegaConf.to_container(cfg.model, resolve=True)
    convert_released(source, output, **{key: value for key, value in options.items() if not key.startswith("_")})


if __name__ == "__main__":
    main()
