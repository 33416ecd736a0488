"""Parameters and multiply-accumulates, counted as in the paper's tables."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode, flop_registry

from distilpose.models.model import PoseModel

aten = torch.ops.aten


def count_parameters(model: nn.Module) -> int:
    """Number of trainable parameters, without the fixed sine positions."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def count_gmacs(model: PoseModel) -> float:
    """Billions of multiply-accumulates for one crop, by the rule of the published figures (mmcv's counter).

    Convolutions count with their bias additions, linear layers without. Batch and layer norms count 2 an element, ReLU and
    nearest up-sampling 1 an output element. Products inside attention, softmax, GELU and other activations, and additions do
    not count.
    """
    training = model.training
    weight = next(model.parameters())
    counter = FlopCounterMode(display=False, custom_mapping=_RULE)
    try:
        # with gradients: the counter cannot follow parameters that a network passes to its modules without them
        with torch.enable_grad(), counter:
            model.eval()(torch.zeros(1, 3, *model.input_size, device=weight.device, dtype=weight.dtype))
    finally:
        model.train(training)
    return counter.get_total_flops() / 1e9


# each function takes the shapes of an operation's tensors
def _convolution(images: Any, weight: Any, bias: Any, *_: Any, out_shape: Any, **__: Any) -> int:
    return math.prod(out_shape) * (math.prod(weight[1:]) + (bias is not None))


def _mm(first: Any, *_: Any, out_shape: Any, **__: Any) -> int:
    return math.prod(out_shape) * first[1]


def _addmm(bias: Any, first: Any, *_: Any, out_shape: Any, **__: Any) -> int:
    return math.prod(out_shape) * first[1]


def _norm(*_: Any, out_shape: Any, **__: Any) -> int:
    return 2 * math.prod(out_shape[0])


def _output(*_: Any, out_shape: Any, **__: Any) -> int:
    return math.prod(out_shape)


_RULE: dict[Any, Any] = {
    **dict.fromkeys(flop_registry, lambda *_, **__: 0),
    **dict.fromkeys((aten.convolution, aten.cudnn_convolution), _convolution),
    aten.mm: _mm,
    aten.addmm: _addmm,
    **dict.fromkeys((aten.native_batch_norm, aten.cudnn_batch_norm, aten.native_layer_norm), _norm),
    **dict.fromkeys((aten.relu, aten.relu_, aten.upsample_nearest2d), _output),
}
