"""Parameters and multiply-accumulates, counted as in the paper's tables."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from distilpose.models.model import PoseModel


def count_parameters(model: nn.Module) -> int:
    """Number of trainable parameters, without the fixed sine positions."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def count_gmacs(model: PoseModel) -> float:
    """Billions of multiply-accumulates for one crop, by the rule of the published figures (mmcv's counter).

    Convolutions count with their bias additions, linear layers without. Batch and layer norms count 2 an element, ReLU and
    nearest up-sampling 1 an output element. Products inside attention, softmax, GELU and additions do not count.
    """
    total = 0

    def count(module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
        nonlocal total
        if isinstance(module, nn.Conv2d):
            total += output.numel() * (module.weight[0].numel() + (module.bias is not None))
        elif isinstance(module, nn.Linear):
            total += output.numel() * module.in_features
        elif isinstance(module, nn.BatchNorm2d | nn.LayerNorm):
            total += 2 * output.numel()
        else:
            total += output.numel()

    counted = (nn.Conv2d, nn.Linear, nn.BatchNorm2d, nn.LayerNorm, nn.ReLU, nn.Upsample)
    hooks = [m.register_forward_hook(count) for m in model.modules() if isinstance(m, counted)]
    training = model.training
    weight = next(model.parameters())
    try:
        with torch.no_grad():
            model.eval()(torch.zeros(1, 3, *model.input_size, device=weight.device, dtype=weight.dtype))
    finally:
        model.train(training)
        for hook in hooks:
            hook.remove()
    return total / 1e9
