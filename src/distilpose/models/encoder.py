"""The token-distilling encoder: one transformer over keypoint and visual tokens, shared by teacher and student."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from distilpose.errors import DistilPoseError
from distilpose.losses.tokens import TokenShape

_TEMPERATURE = 10000


def sine_positions(rows: int, columns: int, width: int) -> Tensor:
    """Fixed two-dimensional sine positions, as in DETR.

    Each axis counts from 1 and is scaled to 2 pi at its end. The first half of the features encodes the row, the second
    half the column, with sine and cosine interleaved.

    Args:
        rows: patches from top to bottom.
        columns: patches from left to right.
        width: D, a multiple of 4.

    Returns:
        (1, rows * columns, D), row-major, float32.
    """
    features = torch.arange(width // 2, dtype=torch.float32)
    wavelengths = _TEMPERATURE ** (2 * (features // 2) / (width // 2))

    def axis(count: int) -> Tensor:
        index = torch.arange(1, count + 1, dtype=torch.float32)
        angles = (index / (index[-1:] + 1e-6) * (2 * math.pi))[:, None] / wavelengths
        return torch.stack((angles[:, 0::2].sin(), angles[:, 1::2].cos()), dim=2).flatten(1)

    vertical = axis(rows)[:, None].expand(rows, columns, -1)
    horizontal = axis(columns)[None].expand(rows, columns, -1)
    return torch.cat((vertical, horizontal), dim=2).reshape(1, rows * columns, width)


class Attention(nn.Module):
    """Multi-head self-attention. The output projection has a bias; queries, keys and values have none."""

    def __init__(self, width: int, heads: int, head_dim: int):
        super().__init__()
        self.heads, self.head_dim = heads, head_dim
        self.qkv = nn.Linear(width, 3 * heads * head_dim, bias=False)
        self.out = nn.Linear(heads * head_dim, width)

    def forward(self, tokens: Tensor) -> Tensor:
        """(N, T, D) -> (N, T, D)."""
        batch, count, _ = tokens.shape
        qkv = self.qkv(tokens).reshape(batch, count, 3, self.heads, self.head_dim)
        query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        mixed = F.scaled_dot_product_attention(query, key, value)
        return self.out(mixed.transpose(1, 2).reshape(batch, count, self.heads * self.head_dim))


class Layer(nn.Module):
    """A pre-norm transformer layer: attention, then a two-layer perceptron, each with a residual connection."""

    def __init__(self, width: int, heads: int, head_dim: int, mlp_dim: int):
        super().__init__()
        self.attention_norm = nn.LayerNorm(width)
        self.attention = Attention(width, heads, head_dim)
        self.mlp_norm = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, mlp_dim), nn.GELU(), nn.Linear(mlp_dim, width))

    def forward(self, tokens: Tensor) -> Tensor:
        """(N, T, D) -> (N, T, D)."""
        tokens = tokens + self.attention(self.attention_norm(tokens))
        return tokens + self.mlp(self.mlp_norm(tokens))


class TokenDistillingEncoder(nn.Module):
    """Transformer over the P visual tokens of a feature map and K learned keypoint tokens (paper, section 3.2).

    Positions are added to the visual tokens before every layer, so they accumulate; keypoint tokens get none. No norm
    follows the last layer: its raw output is what is distilled.

    Args:
        in_channels: channels of the feature map.
        feature_size: rows and columns of the feature map; `patch_size` must divide it.
        num_keypoints: K.
        width: D, a multiple of 4.
        depth: number of layers.
        heads: attention heads of a layer.
        head_dim: features of a head; D / heads, rounded down, if not given.
        mlp_dim: hidden features of the perceptron; 3 D if not given.
        patch_size: (rows, columns) of feature cells in a patch.
    """

    def __init__(
        self,
        in_channels: int,
        feature_size: tuple[int, int],
        num_keypoints: int,
        width: int = 192,
        depth: int = 12,
        heads: int = 8,
        head_dim: int | None = None,
        mlp_dim: int | None = None,
        patch_size: tuple[int, int] = (4, 3),
    ):
        super().__init__()
        if head_dim is None and heads > width:
            raise DistilPoseError(
                f"model.heads={heads} is more than model.width={width}: lower it, or give model.head_dim."
            )
        head_dim = width // heads if head_dim is None else head_dim
        mlp_dim = 3 * width if mlp_dim is None else mlp_dim
        self.num_keypoints, self.width, self.patch_size = num_keypoints, width, patch_size
        self.grad_checkpointing = False
        self.grid = (feature_size[0] // patch_size[0], feature_size[1] // patch_size[1])
        self.keypoint_tokens = nn.Parameter(torch.empty(1, num_keypoints, width))
        self.patch_embedding = nn.Linear(patch_size[0] * patch_size[1] * in_channels, width)
        self.layers = nn.ModuleList(Layer(width, heads, head_dim, mlp_dim) for _ in range(depth))
        # zeros in front for the keypoint tokens: one addition for the whole sequence
        padded = F.pad(sine_positions(*self.grid, width), (0, 0, num_keypoints, 0))
        self.register_buffer("padded_positions", padded, persistent=False)
        self.padded_positions: Tensor
        nn.init.trunc_normal_(self.keypoint_tokens, std=0.02)
        self.apply(init_linear)

    @property
    def positions(self) -> Tensor:
        """(1, P, D) the fixed sine table."""
        return self.padded_positions[:, self.num_keypoints :]

    @property
    def token_shape(self) -> TokenShape:
        """Grid of the visual tokens, and D."""
        return TokenShape(*self.grid, self.width)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute the layers' activations in the backward pass instead of storing them."""
        self.grad_checkpointing = enable

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """(N, C, rows, columns) -> visual tokens (N, P, D) and keypoint tokens (N, K, D)."""
        visual = self.patch_embedding(self._patches(features))
        tokens = torch.cat((self.keypoint_tokens.expand(visual.shape[0], -1, -1), visual), dim=1)
        recompute = self.grad_checkpointing and self.training and torch.is_grad_enabled()
        for layer in self.layers:
            tokens = tokens + self.padded_positions
            tokens = checkpoint(layer, tokens, use_reentrant=False) if recompute else layer(tokens)
        return tokens[:, self.num_keypoints :], tokens[:, : self.num_keypoints]

    def _patches(self, features: Tensor) -> Tensor:
        """(N, C, height, width) -> (N, P, rows * columns * C): patches row-major, each flattened with channels last."""
        (down, across), (rows, columns) = self.grid, self.patch_size
        cells = features.reshape(features.shape[0], features.shape[1], down, rows, across, columns)
        return cells.permute(0, 2, 4, 3, 5, 1).flatten(3).flatten(1, 2)


def init_linear(module: nn.Module) -> None:
    """Initialise a linear layer as the release does: truncated normal of 0.02, bias 0."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
