"""The decoding of ViTPose, against transformers' own on the same maps, in pixels of the photograph."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from distilpose.teachers.convention import Convention
from distilpose.teachers.udp_decoding import decode_udp

processing = pytest.importorskip("transformers.models.vitpose.image_processing_vitpose")
SIZE = (64, 48)


def mixtures(draw: torch.Generator, count: int, noise: float) -> Tensor:
    """(count, 17, 64, 48) maps of three Gaussians each, some beyond the border, plus noise of both signs."""
    y, x = torch.meshgrid(torch.arange(64.0), torch.arange(48.0), indexing="ij")
    centres = torch.rand(count, 17, 3, 2, generator=draw) * torch.tensor([52.0, 68.0]) - 2
    widths = 0.8 + 2 * torch.rand(count, 17, 3, 2, generator=draw)
    heights = torch.rand(count, 17, 3, generator=draw)
    across = torch.exp(-((x - centres[..., 0, None, None]) ** 2) / (2 * widths[..., 0, None, None] ** 2))
    down = torch.exp(-((y - centres[..., 1, None, None]) ** 2) / (2 * widths[..., 1, None, None] ** 2))
    maps = (across * down * heights[..., None, None]).sum(2)
    return maps + noise * torch.randn(maps.shape, generator=draw)


def pixels_of(cells: Tensor, boxes: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Cells as pixels of the photograph by our convention of ViTPose."""
    convention = Convention.udp((4 * size[0], 4 * size[1]), size)
    warps = convention.to_cells(np.stack([convention.warp_of_box(box) for box in boxes]))
    shifted = cells.double().numpy() - warps[:, None, :, 2]
    return np.linalg.solve(warps[:, None, :, :2], shifted[..., None])[..., 0]


def theirs(maps: Tensor, boxes: np.ndarray) -> np.ndarray:
    results = processing.VitPoseImageProcessor().post_process_pose_estimation(
        SimpleNamespace(heatmaps=maps), [[box] for box in boxes.tolist()]
    )
    return torch.stack([person["keypoints"] for (person,) in results]).double().numpy()


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**31), noise=st.sampled_from([0.0, 1e-3, 0.02, 0.3]), count=st.integers(1, 3))
def test_keypoints_equal_transformers_in_the_photograph(seed, noise, count):
    draw, rng = torch.Generator().manual_seed(seed), np.random.default_rng(seed)
    boxes = np.concatenate([rng.uniform(-50, 500, (count, 2)), rng.uniform(10, 400, (count, 2))], axis=1)
    maps = mixtures(draw, count, noise)
    error = np.abs(pixels_of(decode_udp(maps), boxes, SIZE) - theirs(maps, boxes)).max()
    assert error < 0.1
    if noise == 0:
        assert error < 2e-3  # of the float32 in which transformers computes


@pytest.mark.parametrize("at", [(0, 0), (47, 0), (0, 63), (47, 63), (1, 31), (23, 62)])
def test_peaks_at_the_border_are_refined_as_theirs(at):
    y, x = torch.meshgrid(torch.arange(64.0), torch.arange(48.0), indexing="ij")
    maps = torch.exp(-((x - at[0] - 0.3) ** 2 + (y - at[1] + 0.2) ** 2) / 8)[None, None].repeat(1, 2, 1, 1)
    boxes = np.array([[10.0, 20, 300, 400]])
    np.testing.assert_allclose(pixels_of(decode_udp(maps), boxes, SIZE), theirs(maps, boxes), atol=1e-2)


def test_a_gaussian_is_found_where_it_is():
    centres = torch.tensor([[20.3, 30.4], [5.5, 50.1], [40.0, 8.75]])
    y, x = torch.meshgrid(torch.arange(64.0), torch.arange(48.0), indexing="ij")
    maps = torch.exp(-((x - centres[:, 0, None, None]) ** 2 + (y - centres[:, 1, None, None]) ** 2) / 8)[None]
    torch.testing.assert_close(decode_udp(maps)[0], centres, atol=0.02, rtol=0)
    # any memory layout and precision
    torch.testing.assert_close(decode_udp(maps.mT.contiguous().mT), decode_udp(maps))
    torch.testing.assert_close(decode_udp(maps.bfloat16())[0], centres, atol=0.05, rtol=0)


def test_flat_and_empty_maps():
    maps = torch.stack([torch.zeros(64, 48), torch.full((64, 48), -1.0), torch.full((64, 48), 0.5)])[None]
    torch.testing.assert_close(decode_udp(maps)[0], torch.tensor([[-1.0, -1], [-1, -1], [0, 0]]))
