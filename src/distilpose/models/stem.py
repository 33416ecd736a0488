"""The light backbone: two strided convolutions and a few bottlenecks, the first layers of HRNet."""

from __future__ import annotations

from torch import Tensor, nn
from torchvision.models.resnet import Bottleneck


class Stem(nn.Module):
    """Two 3 x 3 convolutions of stride 2, then bottlenecks at a quarter of the crop's resolution (paper, DistilPose-S).

    Args:
        stem_channels: channels of the strided convolutions and inside the bottlenecks; the output has four times as many.
        stem_blocks: number of bottlenecks; the first has a projection shortcut.
    """

    def __init__(self, stem_channels: int = 64, stem_blocks: int = 4):
        super().__init__()
        self.out_channels = 4 * stem_channels
        self.conv1 = nn.Conv2d(3, stem_channels, 3, stride=2, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(stem_channels)
        self.conv2 = nn.Conv2d(stem_channels, stem_channels, 3, stride=2, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(stem_channels)
        self.relu = nn.ReLU(inplace=True)
        projection = nn.Sequential(
            nn.Conv2d(stem_channels, self.out_channels, 1, bias=False), nn.BatchNorm2d(self.out_channels)
        )
        self.layer1 = nn.Sequential(
            Bottleneck(stem_channels, stem_channels, downsample=projection),
            *(Bottleneck(self.out_channels, stem_channels) for _ in range(stem_blocks - 1)),
        )
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=0.001)

    def forward(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) -> (N, 4 stem_channels, H/4, W/4)."""
        features = self.relu(self.bn1(self.conv1(images)))
        features = self.relu(self.bn2(self.conv2(features)))
        return self.layer1(features)
