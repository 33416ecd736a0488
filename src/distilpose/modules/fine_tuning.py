"""Fine-tuning: frozen parts, and smaller learning rates for earlier blocks of the backbone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from distilpose.errors import DistilPoseError


def freeze(model: nn.Module, names: Sequence[str]) -> list[nn.Module]:
    """Freeze parts of a model.

    Args:
        model: changed in place.
        names: names of modules, such as backbone or encoder.layers.0.

    Returns:
        The modules; keep them in eval mode too, since their batch statistics would change otherwise.

    Raises:
        DistilPoseError: the model has no such module, or nothing is left to train.
    """
    parts = dict(model.named_modules())
    unknown = [name for name in names if not name or name not in parts]
    if unknown:
        first = [name for name in parts if name and "." not in name]
        raise DistilPoseError(
            f"method.frozen={list(names)}: the model has no part {unknown[0]!r}; give {', '.join(first)} or a part of them."
        )
    frozen = [parts[name].requires_grad_(False) for name in names]
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise DistilPoseError(f"method.frozen={list(names)} leaves nothing to train: remove one of them.")
    return frozen


def parameter_groups(module: nn.Module, backbone: nn.Module, rate: float, decay: float) -> list[dict[str, Any]]:
    """Parameter groups for an optimiser: the learning rate falls by `decay` a block from the backbone's last to its first.

    Blocks are a network's numbered modules in their order (layer1.0, layer1.1, …). Modules without a number, such as a norm or
    the stem's convolutions, belong to the block before them.

    Args:
        module: the module that is trained; its frozen parameters are left out.
        backbone: a part of it.
        rate: learning rate of the parameters after the backbone.
        decay: factor a block; 1 gives all blocks the same rate.

    Returns:
        Groups of {"params": parameters, "lr": rate}, from the backbone's first block to the parameters after it, which have the
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
