"""A backbone from any timm network that has a stride-4 feature."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from distilpose.errors import DistilPoseError
from distilpose.models.timm_weights import create_features

_REDUCTION = 4


class TimmBackbone(nn.Module):
    """The stride-4 feature of a timm network; layers after it are removed if timm supports that.

    Args:
        backbone: timm's name of the network.
        input_size: (H, W) of the crops; the feature's shape is checked once with it.
        pretrained: whether to start from ImageNet weights.
        backbone_options: passed on to timm, for example `{"img_size": [256, 192]}` for a Swin transformer.

    Raises:
        DistilPoseError: timm has no such network, or the network has no feature of that stride.
    """

    def __init__(
        self,
        backbone: str,
        input_size: tuple[int, int],
        pretrained: bool = False,
        backbone_options: Mapping[str, Any] | None = None,
    ):
        super().__init__()
        options = dict(backbone_options or {})
        reductions = create_features(backbone, False, **options).feature_info.reduction()
        if _REDUCTION not in reductions:
            raise DistilPoseError(
                f"Backbone {backbone!r} has features of stride {', '.join(map(str, sorted(set(reductions))))}, but patches "
                f"need one of stride {_REDUCTION}: choose another backbone."
            )
        index = reductions.index(_REDUCTION)
        self.network = create_features(backbone, pretrained, out_indices=(index,), **options)
        self.out_channels: int = self.network.feature_info.channels()[0]
        self.channels_last = "NHWC" in str(getattr(self.network, "output_fmt", "NCHW"))
        self._check(backbone, input_size)

    def forward(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) -> (N, out_channels, H/4, W/4)."""
        (features,) = self.network(images)
        return features.permute(0, 3, 1, 2) if self.channels_last else features

    def _check(self, backbone: str, input_size: tuple[int, int]) -> None:
        """Run one empty crop: check the feature's shape, and freeze parameters that it does not depend on."""
        training = self.training
        self.eval()
        try:
            features = self(torch.zeros(1, 3, *input_size))
        except Exception as error:  # each network of fixed size fails in its own way
            raise DistilPoseError(
                f"Backbone {backbone!r} does not take crops of {input_size[0]} x {input_size[1]} ({error}): "
                f"try backbone_options={{img_size: [{input_size[0]}, {input_size[1]}]}} or another backbone."
            ) from error
        expected = (self.out_channels, input_size[0] // _REDUCTION, input_size[1] // _REDUCTION)
        if tuple(features.shape[1:]) != expected:
            raise DistilPoseError(
                f"Backbone {backbone!r} gives features of shape {tuple(features.shape[1:])}, expected {expected} (channels, "
                "H/4, W/4): choose another backbone."
            )
        features.sum().backward()
        # timm keeps later layers of some networks, and distributed training fails on parameters without a gradient
        for parameter in self.parameters():
            parameter.requires_grad_(parameter.grad is not None)
            parameter.grad = None
        self.train(training)
