"""The parts of the transformer against definitions written out here."""

from __future__ import annotations

import math

import pytest
import torch

from distilpose.models.encoder import Attention, TokenDistillingEncoder, sine_positions


def test_patches_are_row_major_with_channels_last():
    encoder = TokenDistillingEncoder(5, (8, 9), 2, width=8, depth=1, heads=2, patch_size=(4, 3))
    features = torch.randn(2, 5, 8, 9)
    patches = encoder._patches(features)
    assert patches.shape == (2, 2 * 3, 4 * 3 * 5)
    for down in range(2):
        for across in range(3):
            block = features[1, :, 4 * down : 4 * down + 4, 3 * across : 3 * across + 3]
            assert torch.equal(patches[1, 3 * down + across], block.permute(1, 2, 0).reshape(-1))


def test_sine_positions_by_their_formula():
    table = sine_positions(3, 5, 12)[0].reshape(3, 5, 12)
    for row, column, feature in [(0, 0, 0), (2, 4, 5), (1, 3, 6), (2, 0, 11)]:
        index, count, axis_feature = (row + 1, 3, feature) if feature < 6 else (column + 1, 5, feature - 6)
        angle = index / (count + 1e-6) * 2 * math.pi / 10000 ** (2 * (axis_feature // 2) / 6)
        expected = math.cos(angle) if axis_feature % 2 else math.sin(angle)
        assert table[row, column, feature].item() == pytest.approx(expected, abs=2e-6)


def test_attention_by_its_definition():
    attention = Attention(12, heads=3, head_dim=5).double()
    tokens = torch.randn(2, 7, 12, dtype=torch.float64)
    query, key, value = attention.qkv(tokens).chunk(3, dim=-1)
    mixed = []
    for head in range(3):
        part = slice(5 * head, 5 * head + 5)
        weights = (query[..., part] @ key[..., part].transpose(1, 2) * 5**-0.5).softmax(-1)
        mixed.append(weights @ value[..., part])
    torch.testing.assert_close(attention(tokens), attention.out(torch.cat(mixed, -1)))
    assert attention.qkv.bias is None
    assert attention.out.bias is not None


def test_positions_accumulate_on_visual_tokens_only():
    encoder = TokenDistillingEncoder(4, (4, 6), 3, width=8, depth=5, heads=2, patch_size=(2, 2))
    for layer in encoder.layers:  # these layers add nothing, so only the positions are added
        torch.nn.init.zeros_(layer.attention.out.weight)
        torch.nn.init.zeros_(layer.mlp[2].weight)
    features = torch.randn(2, 4, 4, 6)
    visual, keypoint = encoder(features)
    torch.testing.assert_close(keypoint, encoder.keypoint_tokens.expand(2, -1, -1))
    embedded = encoder.patch_embedding(encoder._patches(features))
    torch.testing.assert_close(visual, embedded + 5 * encoder.positions)


def test_initialisation_equals_the_release():
    torch.manual_seed(0)
    encoder = TokenDistillingEncoder(64, (64, 48), 17, depth=1)
    for weight in (encoder.keypoint_tokens, encoder.patch_embedding.weight, encoder.layers[0].attention.qkv.weight):
        assert weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert not encoder.patch_embedding.bias.any()
    assert "padded_positions" not in encoder.state_dict()
