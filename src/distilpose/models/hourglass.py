"""A small one-stack hourglass: the backbone of the models for two CPU cores.

The receptive field of the stem is only 20 to 50 pixels, so attention has to do the rest: on 2,000 synthetic persons such a
model stays at the mean pose for all of the demo's training. An hourglass goes down to stride 16 and up again, so every
token sees its surroundings, as in HRNet.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

UP = 4


class Hourglass(nn.Module):
    """Down to stride 16, up again, and concatenated with the features at stride 4; convolutions 3 x 3 with BN and ReLU.

    Args:
        widths: channels at strides 2, 4, 8 and 16.
        out_channels: channels of the output.
    """

    def __init__(self, widths: Sequence[int] = (16, 24, 32, 48), out_channels: int = 32):
        super().__init__()
        half, quarter, eighth, sixteenth = widths
        self.stem = nn.Sequential(_conv(3, half, 2), _conv(half, quarter, 2), _conv(quarter, quarter))
        self.down = nn.Sequential(
            _conv(quarter, eighth, 2),
            _conv(eighth, eighth),
            _conv(eighth, sixteenth, 2),
            _conv(sixteenth, sixteenth),
            _conv(sixteenth, sixteenth),
        )
        self.up = nn.Upsample(scale_factor=UP)
        self.join = _conv(quarter + sixteenth, out_channels)
        self.out_channels = out_channels

    def forward(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) -> (N, out_channels, H/4, W/4)."""
        fine = self.stem(images)
        height, width = fine.shape[-2:]
        # a size that 16 does not divide is rounded up on the way down
        coarse = self.up(self.down(fine))[..., :height, :width]
        return self.join(torch.cat((fine, coarse), dim=1))


def _conv(in_channels: int, out_channels: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 3, stride, 1, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
    )
