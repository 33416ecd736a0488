"""Encode and decode as a pair, and DARK against a plain loop over OpenCV."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest
import torch

from distilpose.data.codec import decode_heatmaps, encode_heatmaps, encode_regression, keypoints_to_image
from distilpose.data.geometry import Region, warp_of_region, warp_points

MAP = (64, 48)


def loop_decode(heatmaps: np.ndarray, kernel: int = 11) -> tuple[np.ndarray, np.ndarray]:
    """DARK on one map at a time: zero-padded blur, rescaling, logarithm, and a Newton step by a linear solve."""
    cells, scores = np.zeros((*heatmaps.shape[:2], 2)), np.zeros(heatmaps.shape[:2])
    height, width = heatmaps.shape[2:]
    for n, k in np.ndindex(heatmaps.shape[:2]):
        heatmap = heatmaps[n, k].astype(np.float32)
        y, x = np.unravel_index(heatmap.argmax(), heatmap.shape)
        scores[n, k] = heatmap.max()
        if heatmap.max() <= 0:
            cells[n, k] = -1
            continue
        blurred = cv2.GaussianBlur(np.pad(heatmap, kernel), (kernel, kernel), 0)[kernel:-kernel, kernel:-kernel]
        log = np.log(np.maximum(blurred * (heatmap.max() / blurred.max()), 1e-10)).astype(np.float64)
        cells[n, k] = x, y
        if 1 < x < width - 2 and 1 < y < height - 2:
            gradient = [(log[y, x + 1] - log[y, x - 1]) / 2, (log[y + 1, x] - log[y - 1, x]) / 2]
            across = (log[y, x + 2] - 2 * log[y, x] + log[y, x - 2]) / 4
            down = (log[y + 2, x] - 2 * log[y, x] + log[y - 2, x]) / 4
            mixed = (log[y + 1, x + 1] - log[y - 1, x + 1] - log[y + 1, x - 1] + log[y - 1, x - 1]) / 4
            hessian = np.array([[across, mixed], [mixed, down]])
            if np.linalg.det(hessian) != 0:
                cells[n, k] -= np.linalg.solve(hessian, gradient)
    return cells, scores


def test_targets_equal_the_release(release_fixtures):
    sample = json.loads((release_fixtures / "pipeline_sample.json").read_text())
    people = sample["instances"]
    pixels = torch.tensor([person["joints_in_crop"] for person in people])[..., :2]
    labelled = torch.tensor([person["joints_visible"] for person in people])[..., 0]
    keypoints, weights = encode_regression(pixels, labelled, (256, 192))
    expected = torch.tensor([person["regression_target"] for person in people])
    torch.testing.assert_close(keypoints, expected, rtol=0, atol=1e-7)
    assert weights.tolist() == [[row[0] for row in person["regression_weight"]] for person in people]
    heatmaps, weights = encode_heatmaps(keypoints, labelled, MAP)
    assert weights.tolist() == [[row[0] for row in person["heatmap_weight"]] for person in people]
    sums, peaks = (torch.tensor([person[key] for person in people]) for key in ("heatmap_sum", "heatmap_max"))
    torch.testing.assert_close(heatmaps.sum((2, 3)), sums, rtol=1e-6, atol=1e-5)
    torch.testing.assert_close(heatmaps.amax((2, 3)), peaks, rtol=0, atol=1e-6)
    assert heatmaps.flatten(2).argmax(-1).tolist() == [person["heatmap_argmax"] for person in people]


def test_regression_weight_ends_at_the_last_pixel():
    pixels = torch.tensor([[[0.0, 0.0], [191.0, 255.0], [191.1, 10.0], [10.0, 255.1], [-0.1, 5.0], [50.0, 60.0]]])
    labelled = torch.tensor([[1.0, 1, 1, 1, 1, 0]])
    keypoints, weights = encode_regression(pixels, labelled, (256, 192))
    assert weights.tolist() == [[1, 1, 0, 0, 0, 0]]
    torch.testing.assert_close(keypoints * torch.tensor([192.0, 256.0]), pixels, rtol=1e-6, atol=1e-5)


def test_heatmap_weight_is_lost_where_three_sigma_leave_the_map():
    cells = torch.tensor([[[-7.1, 20.0], [-6.9, 20.0], [53.9, 20.0], [54.0, 20.0], [20.0, 70.0], [20.0, -7.0]]])
    heatmaps, weights = encode_heatmaps(cells / torch.tensor([48.0, 64.0]), torch.ones(1, 6), MAP)
    assert weights.tolist() == [[0, 1, 1, 0, 0, 1]]
    assert (heatmaps.flatten(2).sum(-1) > 0).tolist() == [[False, True, True, False, False, True]]


def test_unlabelled_joint_has_no_map():
    heatmaps, weights = encode_heatmaps(torch.full((1, 2, 2), 0.5), torch.tensor([[1.0, 0.0]]), MAP)
    assert weights.tolist() == [[1, 0]]
    assert heatmaps[0, 0].max() == 1
    assert not heatmaps[0, 1].any()


def test_decode_undoes_encode():
    generator = torch.Generator().manual_seed(0)
    keypoints = 0.15 + 0.7 * torch.rand(8, 17, 2, generator=generator)
    decoded, scores = decode_heatmaps(encode_heatmaps(keypoints, torch.ones(8, 17), MAP)[0])
    error = (decoded - keypoints) * torch.tensor([48.0, 64.0])
    assert error.abs().max() < 0.01
    assert ((scores > 0.9) & (scores <= 1)).all()


@pytest.mark.parametrize("size", [(64, 48), (16, 12), (96, 72)])
def test_dark_equals_a_loop_over_opencv(size):
    draw = np.random.default_rng(1)
    keypoints = torch.from_numpy(draw.uniform(-0.05, 1.05, (6, 5, 2)))
    heatmaps = encode_heatmaps(keypoints, torch.ones(6, 5), size)[0].numpy()
    heatmaps[:4] = heatmaps[:4] * draw.uniform(0.2, 1.1, (4, 5, 1, 1)) + draw.normal(0, 0.02, heatmaps[:4].shape)
    heatmaps[5, 0] = 0
    heatmaps[5, 1] = -np.abs(heatmaps[5, 1]) - 0.1
    heatmaps[5, 2] = 0.3  # constant: the arg-max is the first cell, at the border
    cells, scores = loop_decode(heatmaps)
    decoded, values = decode_heatmaps(torch.from_numpy(heatmaps), kernel=11)
    decoded_cells = decoded.numpy() * [size[1], size[0]]
    np.testing.assert_allclose(values, scores, atol=1e-7)
    np.testing.assert_allclose(decoded_cells, cells, atol=2e-3)
    np.testing.assert_allclose(decoded_cells[5, :2], -1, atol=1e-6)


def test_singular_hessian_leaves_the_cell():
    heatmaps = torch.zeros(1, 1, 64, 48)
    heatmaps[0, 0, :, 20] = 1
    heatmaps[0, 0, 30, 20] = 1.0000001  # a ridge: curved across, straight along
    keypoints, _ = decode_heatmaps(heatmaps, kernel=3)
    assert torch.isfinite(keypoints).all()
    assert keypoints[0, 0, 0] * 48 == pytest.approx(20, abs=0.01)


def test_bf16_autocast_changes_nothing():
    heatmaps = encode_heatmaps(torch.rand(2, 3, 2), torch.ones(2, 3), MAP)[0]
    plain = decode_heatmaps(heatmaps)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = decode_heatmaps(heatmaps)
    assert torch.equal(plain[0], mixed[0])


def test_back_to_the_image_is_the_inverse_of_the_warp():
    draw = np.random.default_rng(2)
    points = draw.uniform(0, 600, (4, 7, 2))
    warps, crops = [], []
    for n in range(4):
        region = Region(draw.uniform(50, 500, 2).astype(np.float32), np.float32([75, 100]) * (1 + n))
        warps.append(warp_of_region(region, (256, 192), rotation=40 * n, mirror_width=640 if n % 2 else None))
        crops.append(warp_points(points[n], warps[-1]))
    keypoints, _ = encode_regression(torch.from_numpy(np.stack(crops)), torch.ones(4, 7), (256, 192))
    back = keypoints_to_image(keypoints, torch.from_numpy(np.stack(warps)), (256, 192))
    np.testing.assert_allclose(back, points, atol=2e-3)


def test_upright_inverse_is_centre_plus_share_of_the_region():
    region = Region(np.float32([300, 200]), np.float32([150, 200]))
    warp = torch.from_numpy(warp_of_region(region, (256, 192)))[None]
    keypoints = torch.tensor([[[0.5, 0.5], [0.0, 0.0], [0.25, 1.0]]])
    expected = torch.tensor([300.0, 200.0]) + (keypoints - 0.5) * torch.tensor([150.0, 200.0])
    torch.testing.assert_close(keypoints_to_image(keypoints, warp, (256, 192)), expected, rtol=0, atol=1e-3)
