"""Fine-tuning: frozen parts, and smaller learning rates for earlier blocks of the backbone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from distilpose.errors import DistilPoseError, first_line
from distilpose.models import PoseModel


def freeze(model: PoseModel, names: Sequence[str]) -> list[nn.Module]:
    """Freeze parts of a model.

    Args:
        model: changed in place.
        names: names of modules, such as backbone or encoder.layers.0.

    Returns:
        The frozen modules. Keep them in eval mode too, otherwise their batch statistics change.

    Raises:
        DistilPoseError: the model has no module of that name, or no parameter is left to train.
    """
    try:
        frozen = [model.get_submodule(name).requires_grad_(False) for name in names]
    except AttributeError as error:
        known = ", ".join(name for name, _ in model.named_modules() if name and name.count(".") < 2)
        raise DistilPoseError(
            f"method.frozen={list(names)} must name modules of {model.name} ({first_line(error)}): give some of {known}, or "
            "modules inside these, such as encoder.layers.0."
        ) from error
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise DistilPoseError(f"method.frozen={list(names)} is all of {model.name}: leave a part of it to train.")
    return frozen


def parameter_groups(module: nn.Module, backbone: nn.Module, rate: float, decay: float) -> list[dict[str, Any]]:
    """Parameter groups for an optimizer: from the backbone's last block to its first, each has `decay` times the rate before.

    Blocks are the backbone's numbered modules in their order (layer1.0, layer1.1, …). A module without a number, such as a norm
    or a convolution of the stem, belongs to the block before it.

    Args:
        module: the module that is trained; its frozen parameters are left out.
        backbone: the part of it that is divided into blocks.
        rate: learning rate of the parameters outside the backbone.
        decay: factor from one block to the one before; 1 gives all blocks the same rate.

    Returns:
        Groups of {"params": parameters, "lr": rate}. The first is the backbone's first block; the last are the parameters
        outside the backbone, with the full rate.
    """
    blocks: dict[str, list[nn.Parameter]] = {"": []}
    for name, parameter in backbone.named_parameters():
        parts = name.split(".")
        numbered = next((index for index, part in enumerate(parts) if part.isdigit()), None)
        key = list(blocks)[-1] if numbered is None else ".".join(parts[: numbered + 1])
        blocks.setdefault(key, []).append(parameter)
    kept = [[p for p in block if p.requires_grad] for block in blocks.values() if block]
    inside = {id(parameter) for block in kept for parameter in block}
    rest = [p for p in module.parameters() if p.requires_grad and id(p) not in inside]
    groups = [
        {"params": block, "lr": rate * decay ** (len(kept) - 1 - index)} for index, block in enumerate(kept) if block
    ]
    return [*groups, {"params": rest, "lr": rate}] if rest else groups
