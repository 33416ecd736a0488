"""Turn released mmpose checkpoints into this package's files, and back.

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
from distilpose.errors import DistilPoseError, check_flag
from distilpose.files import atomic_write
from distilpose.models import PoseModel, create_model, list_models, load_model, model_spec, save_model
from distilpose.models.checkpoint import fit_weights, read_torch_file
from distilpose.models.released import POSITIONS, ours_to_released, released_kind, released_to_ours
from distilpose.models.remote import local_file

_SAME_TABLE = 1e-5


def convert_released(source: Path, output: Path, **model_options: Any) -> PoseModel:
    """Write a released checkpoint as `.safetensors` and print what became of each of its tensors.

    The number of joints and a teacher's hidden width are read off the file; see `released_to_ours` for the names.

    Args:
        source: an mmpose file, `{'meta', 'state_dict', 'optimizer'}`, student or teacher.
        output: the `.safetensors` to write; must not exist.
        **model_options: name and options for `create_model`.

    Returns:
        The model written.

    Raises:
        DistilPoseError: if the file is not a released one, is of another model, or holds a name nobody knows.
    """
    state = _released_state(source)
    released, aside = released_to_ours(state)
    tokens = released.get("encoder.keypoint_tokens")
    model_options |= {"pretrained": False, "num_keypoints": None if tokens is None else tokens.shape[1]}
    # the release takes an eighth of the map's cells for the teacher's hidden width, which is 2 D at 256 x 192 only
    hidden = released.get("head.hidden.weight")
    if hidden is not None and "hidden_dim" in model_spec(model_options["name"]).options:
        model_options["hidden_dim"] = model_options.get("hidden_dim") or len(hidden)
    model = create_model(**model_options)
    if released_kind(state) != model.kind:
        raise DistilPoseError(
            f"{source} holds a {released_kind(state)}, but model={model.name} is a {model.kind}: "
            f"choose one of {', '.join(list_models(released_kind(state)))}."
        )
    fit_weights(model, released, source)
    notes = [f"  {name}: {_compare_positions(value, model, source)}" for name, value in aside.items()]
    save_model(model, output)
    print(f"{source}: {len(state)} tensors, {len(released)} of them loaded into {model.name}, {len(aside)} not:")
    print("\n".join(notes or [f"  (no {POSITIONS} in the file: the sine table is computed here)"]))
    print(f"written to {output}")
    if model.kind == "student" and model.scores_trained:
        print("  the file does not say whether its scores were trained: if not, add +model.scores_trained=false")
    return model


def convert_ours(source: Path, output: Path, weights_kind: str = "averaged") -> None:
    """Write a model of this package as a released-format `.pth`: `{'meta', 'state_dict'}` by the released names.

    Args:
        source: a `.safetensors` or `.ckpt` of this package.
        output: the `.pth` to write; must not exist.
        weights_kind: as of `load_model`.
    """
    model = load_model(source, weights_kind)
    state = ours_to_released(model)
    with atomic_write(output) as temporary:
        torch.save({"meta": {"converted_from": f"distilpose {model.name}"}, "state_dict": state}, temporary)
    print(f"{source}: {model.name}, {len(state)} tensors written to {output} by their released names")
    print(f"  {POSITIONS}: the sine table, computed here, is a tensor of the released format")


def _released_state(source: Path) -> Mapping[str, Tensor]:
    content = read_torch_file(source)
    state = content.get("state_dict") if isinstance(content, dict) else None
    if not isinstance(state, dict):
        raise DistilPoseError(
            f"{source} has no 'state_dict': a released checkpoint is {{'meta', 'state_dict', 'optimizer'}}."
        )
    if not released_kind(state) and "hyper_parameters" in content:
        raise DistilPoseError(f"{source} is a checkpoint of this package already: use it as it is.")
    return state


def _compare_positions(table: Tensor, model: PoseModel, source: Path) -> str:
    assert model.encoder is not None  # the release's weights fitted
    ours = model.encoder.positions
    if table.shape != ours.shape:
        raise DistilPoseError(
            f"{source} has a table of {tuple(table.shape)} positions where {model.name} has {tuple(ours.shape)}: "
            "give the crop size it was trained at by model.input_size=[H,W]."
        )
    difference = (table.to(ours.dtype) - ours).abs().max().item()
    if difference > _SAME_TABLE:
        raise DistilPoseError(
            f"{source} was trained with other positions than the fixed sine table (largest difference "
            f"{difference:.2g}): its outputs could not be reproduced, so nothing was written."
        )
    return f"the fixed sine table, computed here; largest difference {difference:.1g}"


@command("convert")
def main(cfg: DictConfig) -> None:
    """The command."""
    if cfg.source is None or cfg.output is None:
        raise DistilPoseError(
            "convert needs both ends: source=RELEASED.pth model=NAME output=FILE.safetensors, or "
            "source=FILE.safetensors output=RELEASED.pth reverse=true."
        )
    check_flag("reverse", cfg.reverse)
    output = Path(str(cfg.output))
    source = local_file(cfg.source) if cfg.reverse else Path(str(cfg.source))
    if not source.is_file():
        raise DistilPoseError(f"source={source} is not a file: give the checkpoint to convert.")
    if output.exists():
        raise DistilPoseError(f"output={output} exists and is not overwritten: choose another name or remove it first.")
    if cfg.reverse:
        convert_ours(source, output, cfg.weights_kind)
        return
    if "model" not in cfg:
        raise DistilPoseError(f"convert needs model=NAME, the network in {source}: one of {', '.join(list_models())}.")
    options = OmegaConf.to_container(cfg.model, resolve=True)
    assert isinstance(options, dict)
    convert_released(source, output, **{str(k): v for k, v in options.items() if not str(k).startswith("_")})


if __name__ == "__main__":
    main()
