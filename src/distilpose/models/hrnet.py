"""HRNet-W48 for poses: timm's layers up to the highest-resolution branch, without layers which that branch does not use."""

from __future__ import annotations

from pathlib import Path

import torch.nn.functional as F
from torch import Tensor, nn

from distilpose.models.timm_weights import create_features

_STRIDE = 32  # stride of the lowest-resolution branch


class HRNetW48(nn.Module):
    """HRNet-W48's highest-resolution branch, 48 channels at a quarter of the crop's resolution.

    Layers have timm's names, which are also those of the published HRNet checkpoints.

    Args:
        stages: 4 for the whole network (the teacher), 3 to stop after stage 3 (DistilPose-L).
        pretrained: whether to start from ImageNet weights, or a `.safetensors` file with them in timm's names.
    """

    out_channels = 48

    def __init__(self, stages: int = 4, pretrained: bool | str | Path = False):
        super().__init__()
        network = create_features("hrnet_w48", pretrained, feature_location="", out_indices=(1,))
        self.conv1, self.bn1, self.act1 = network.conv1, network.bn1, network.act1
        self.conv2, self.bn2, self.act2 = network.conv2, network.bn2, network.act2
        self.layer1 = network.layer1
        self.stages = range(2, stages + 1)
        for stage in self.stages:
            setattr(self, f"transition{stage - 1}", getattr(network, f"transition{stage - 1}"))
            setattr(self, f"stage{stage}", getattr(network, f"stage{stage}"))
        last = getattr(self, f"stage{stages}")[-1]
        last.fuse_layers = last.fuse_layers[:1]

    def forward(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) -> (N, 48, H/4, W/4)."""
        height, width = images.shape[-2:]
        # branches are fused by doubling their size, so each must halve exactly: pad to a multiple and crop the output
        if height % _STRIDE or width % _STRIDE:
            images = F.pad(images, (0, -width % _STRIDE, 0, -height % _STRIDE))
        features = self.act1(self.bn1(self.conv1(images)))
        features = self.act2(self.bn2(self.conv2(features)))
        branches = [self.layer1(features)]
        for stage in self.stages:
            transition = getattr(self, f"transition{stage - 1}")
            # the last transition makes a new branch from the lowest resolution
            branches = [layer(branches[min(index, len(branches) - 1)]) for index, layer in enumerate(transition)]
            branches = getattr(self, f"stage{stage}")(branches)
        return branches[0][..., : height // 4, : width // 4]
