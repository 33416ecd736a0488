"""Training parts of a model slower than others, or not at all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from distilpose.errors import DistilPoseError


def freeze(model: nn.Module, names: Sequence[str]) -> list[nn.Module]:
    """Take parts of a model out of the training.

    Args:
        model: changed in place.
        names: of modules, such as backbone or encoder.layers.0.

    Returns:
        The modules, which also want to be kept in eval mode, as their batch statistics would move.

    Raises:
        DistilPoseError: the model has no such module, or nothing is left to train.
    """
    if isinstance(names, str) or names is None:
        raise DistilPoseError(f"method.frozen={names} must be a list: method.frozen=[{names or ''}].")
    parts = dict(model.named_modules())
    unknown = [name for name in names if not name or name not in parts]
    if unknown:
        first = [name for name in parts if name and "." not in name]
        raise DistilPoseError(
            f"method.frozen={list(names)}: the model has no part {unknown[0]!r}, expected {', '.join(first)} or a part of "
            "these."
        )
    frozen = [parts[name].requires_grad_(False) for name in names]
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise DistilPoseError(f"method.frozen={list(names)} leaves nothing to train: leave one of them out.")
    return frozen


def parameter_groups(module: nn.Module, backbone: nn.Module, rate: float, decay: float) -> list[dict[str, Any]]:
    """Parameters for an optimiser, the backbone's rate falling by `decay` a block from its last to its first.

    Blocks are a network's numbered modules in their order (layer1.0, layer1.1, …); what has no number, such as a norm or
    the stem's convolutions, goes with the block before it.

    Args:
        module: all that is trained; its frozen parameters are left out.
        backbone: part of it.
        rate: of everything past the backbone.
        decay: 1 trains all alike.

    Returns:
        Groups of {"params": parameters, "lr": rate}, from the backbone's first block to what lies past it, which has the
        full rate.
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
