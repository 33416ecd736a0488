"""A backbone from any timm network that has a stride-4 feature."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from distilpose.errors import DistilPoseError, first_line
from distilpose.models.timm_weights import create_features

_REDUCTION = 4


class TimmBackbone(nn.Module):
    """The stride-4 feature of a timm network; layers after it are removed if timm supports that.

    Args:
        backbone: timm's name of the network.
        input_size: (H, W) of the crops.
        pretrained: whether to start from ImageNet weights.
        backbone_options: passed on to timm, for example `{"img_size": [256, 192]}` for a Swin transformer.

    Raises:
        DistilPoseError: timm cannot build the network, it does not take crops of this size, or it has no feature of a
            quarter of their size.
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
        self.network = create_features(backbone, pretrained, **{**options, "out_indices": (index,)})
        self.out_channels: int = self.network.feature_info.channels()[0]
        self.channels_last = "NHWC" in str(getattr(self.network, "output_fmt", "NCHW"))
        self._freeze_unused(backbone, input_size)

    def forward(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) -> (N, out_channels, H/4, W/4)."""
        (features,) = self.network(images)
        return features.permute(0, 3, 1, 2) if self.channels_last else features

    def _freeze_unused(self, name: str, input_size: tuple[int, int]) -> None:
        """Try the network, and freeze the parameters that the feature does not depend on.

        timm keeps the later layers of some networks, and distributed training fails on parameters without a gradient.
        """
        height, width = input_size
        self.eval()
        try:
            features = self(torch.zeros(1, 3, height, width))
        except Exception as error:  # the type depends on the network
            raise DistilPoseError(
                f"Backbone {name!r} does not take crops of {height} x {width} ({first_line(error).rstrip('.')}): give "
                f"another model.input_size, or, if it has that option, model.backbone_options={{img_size:[{height},{width}]}}."
            ) from error
        if features.shape[-2:] != (height // _REDUCTION, width // _REDUCTION):
            raise DistilPoseError(
                f"Backbone {name!r} has features of {features.shape[-2]} x {features.shape[-1]} for crops of {height} x "
                f"{width}, expected {height // _REDUCTION} x {width // _REDUCTION}: choose another backbone."
            )
        features.sum().backward()
        for parameter in self.parameters():
            parameter.requires_grad_(parameter.grad is not None)
            parameter.grad = None
        self.train()
