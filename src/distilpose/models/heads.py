"""Heads: coordinates, scores and sigmas from the student's tokens, heat maps from the teacher's.

All heads run in float32 (float64 in a float64 model) under autocast too: an error of a thousandth in a coordinate is a
quarter of a pixel, and the logarithm in heat-map decoding magnifies rounding.
"""

from __future__ import annotations

import contextlib
from contextlib import AbstractContextManager
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distilpose.models.encoder import init_linear
from distilpose.outputs import StudentOutput, TeacherOutput

Activation = Literal["none", "softmax"]


class StudentHead(nn.Module):
    """LayerNorm and one linear layer to (x, y), a score and (sigma_x, sigma_y) for each keypoint token.

    Args:
        width: D.
    """

    def __init__(self, width: int):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.linear = nn.Linear(width, 5)
        self.apply(init_linear)

    def forward(self, visual_tokens: Tensor, keypoint_tokens: Tensor) -> StudentOutput:
        """(N, P, D) and (N, K, D) -> StudentOutput."""
        with _full_precision(keypoint_tokens):
            raw = self.linear(self.norm(keypoint_tokens.to(self.linear.weight.dtype)))
            raw = raw.to(torch.promote_types(raw.dtype, torch.float32))
            keypoints, scores, sigmas = raw[..., :2].sigmoid(), raw[..., 2], F.softplus(raw[..., 3:])
        return StudentOutput(keypoints, scores, sigmas, visual_tokens, keypoint_tokens)


class TeacherHead(nn.Module):
    """LayerNorm, linear, LayerNorm, linear: one heat map for each keypoint token, without activation between.

    Args:
        width: D.
        heatmap_size: (H/4, W/4).
        hidden_dim: features between the two linear layers; 2 D if not given.
        activation: "none" gives raw maps, for training by squared difference; "softmax" gives a softmax over the map's cells
            scaled to a peak of one, for training by cross-entropy.
    """

    def __init__(
        self, width: int, heatmap_size: tuple[int, int], hidden_dim: int | None = None, activation: Activation = "none"
    ):
        super().__init__()
        self.activation: Activation = activation
        hidden_dim = 2 * width if hidden_dim is None else hidden_dim
        self.heatmap_size = heatmap_size
        self.norm = nn.LayerNorm(width)
        self.hidden = nn.Linear(width, hidden_dim)
        self.hidden_norm = nn.LayerNorm(hidden_dim)
        self.linear = nn.Linear(hidden_dim, heatmap_size[0] * heatmap_size[1])
        self.apply(init_linear)

    def forward(self, visual_tokens: Tensor, keypoint_tokens: Tensor) -> TeacherOutput:
        """(N, P, D) and (N, K, D) -> TeacherOutput."""
        with _full_precision(keypoint_tokens):
            hidden = self.hidden(self.norm(keypoint_tokens.to(self.linear.weight.dtype)))
            heatmaps = self.linear(self.hidden_norm(hidden)).unflatten(2, self.heatmap_size)
            return TeacherOutput(_activate(heatmaps, self.activation), visual_tokens, keypoint_tokens)


class ConvolutionHead(nn.Module):
    """One 1 x 1 convolution from features to heat maps: a plain heat-map network's head, without tokens.

    Args:
        in_channels: channels of the features.
        num_keypoints: K.
        activation: as in `TeacherHead`.
    """

    def __init__(self, in_channels: int, num_keypoints: int, activation: Activation = "none"):
        super().__init__()
        self.activation: Activation = activation
        self.convolution = nn.Conv2d(in_channels, num_keypoints, 1)
        nn.init.normal_(self.convolution.weight, std=0.001)
        nn.init.zeros_(self.convolution.bias)  # type: ignore[arg-type]

    def forward(self, features: Tensor) -> TeacherOutput:
        """(N, C, H/4, W/4) -> TeacherOutput without tokens."""
        with _full_precision(features):
            heatmaps = self.convolution(features.to(self.convolution.weight.dtype))
            return TeacherOutput(_activate(heatmaps, self.activation))


def _activate(heatmaps: Tensor, activation: Activation) -> Tensor:
    """Maps in float32 or float64, raw or as a softmax over their cells scaled to a peak of one."""
    heatmaps = heatmaps.to(torch.promote_types(heatmaps.dtype, torch.float32))
    if activation == "softmax":
        heatmaps = (heatmaps - heatmaps.amax(dim=(-2, -1), keepdim=True)).exp()
    return heatmaps


def _full_precision(tensor: Tensor) -> AbstractContextManager:
    """Switch autocast off if it is on; do nothing otherwise, so that exported graphs do not contain it."""
    device = tensor.device.type
    if torch.is_autocast_enabled(device):
        return torch.autocast(device, enabled=False)
    return contextlib.nullcontext()
