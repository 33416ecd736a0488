"""Target codec: joints to regression targets and heat maps, heat maps and regressed joints back to the image.

Everything is batched tensor code in float32 on the device of its input. The convention throughout: a joint at crop
pixel (u, v) has keypoint (u / W, v / H), and its heat-map cell is the keypoint times the map's width and height.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def encode_regression(pixels: Tensor, labelled: Tensor, input_size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Regression targets of joints in crop pixels.

    Args:
        pixels: (..., K, 2) joints in crop pixels.
        labelled: (..., K) 1 for a labelled joint, else 0.
        input_size: (H, W) of the crop.

    Returns:
        keypoints: (..., K, 2) share of the crop's width and height.
        weights: (..., K) 1 for a labelled joint on a pixel of the crop, else 0.
    """
    size = _width_height(input_size, pixels)
    pixels = pixels.float()
    inside = ((pixels >= 0) & (pixels <= size - 1)).all(dim=-1)
    return pixels / size, labelled.float() * inside


def encode_heatmaps(
    keypoints: Tensor, labelled: Tensor, heatmap_size: tuple[int, int], sigma: float = 2.0
) -> tuple[Tensor, Tensor]:
    """Gaussian heat maps with their peak of 1 at the joint's unrounded position, over the whole map.

    The Gaussian of a joint slightly outside the crop reaches into the map. The joint has weight 1 as long as its 3-sigma
    box touches the map.

    Args:
        keypoints: (N, K, 2) in [0, 1] of the crop.
        labelled: (N, K) 1 for a labelled joint, inside or outside the crop, else 0.
        heatmap_size: (H, W) in cells.
        sigma: standard deviation of the Gaussian in cells.

    Returns:
        heatmaps: (N, K, H, W), all zero where the weight is 0.
        weights: (N, K) 1 for a labelled joint whose 3-sigma box is not completely outside the map, else 0.
    """
    height, width = heatmap_size
    size = _width_height(heatmap_size, keypoints)
    centre = keypoints.float() * size
    touches = ((centre - 3 * sigma < size) & (centre + 3 * sigma + 1 >= 0)).all(dim=-1)
    weights = labelled.float() * touches
    columns = torch.arange(width, device=keypoints.device, dtype=torch.float32)
    rows = torch.arange(height, device=keypoints.device, dtype=torch.float32)
    across = torch.exp(-((columns - centre[..., :1]) ** 2) / (2 * sigma**2))
    down = torch.exp(-((rows - centre[..., 1:]) ** 2) / (2 * sigma**2))
    return down[..., :, None] * across[..., None, :] * weights[..., None, None], weights


def decode_heatmaps(heatmaps: Tensor, kernel: int | None = None) -> tuple[Tensor, Tensor]:
    """Joints from heat maps: the arg-max cell with the sub-cell refinement of DARK (Zhang et al., CVPR 2020).

    The map is smoothed by a Gaussian, its logarithm is taken, and one Newton step is made from the arg-max. Peaks within
    two cells of the border, and peaks with a singular Hessian, are not refined.

    Args:
        heatmaps: (N, K, H, W).
        kernel: size of the smoothing kernel in cells, odd; its sigma is 0.3 ((kernel - 1) / 2 - 1) + 0.8. By default 11
            for maps of 64 rows and more, as in the release, and proportionally less for smaller maps, at least 3.

    Returns:
        keypoints: (N, K, 2) in [0, 1] of the crop (cell / size). The joint of a map without a positive value is at cell
            (-1, -1), outside the crop.
        scores: (N, K) the map's highest value.
    """
    heatmaps = heatmaps.float()
    height, width = heatmaps.shape[-2:]
    if kernel is None:
        kernel = min(11, max(3, 2 * round((11 * height / 64 - 1) / 2) + 1))
    scores, best = heatmaps.flatten(-2).max(dim=-1)
    column, row = best % width, torch.div(best, width, rounding_mode="floor")
    cell = torch.stack([column, row], dim=-1).float()

    smooth = _gaussian_blur(heatmaps, kernel)
    peak = smooth.amax(dim=(-2, -1), keepdim=True)
    smooth = smooth * (scores[..., None, None] / torch.where(peak == 0, torch.ones_like(peak), peak))
    log = smooth.clamp(min=1e-10).log().flatten(-2)

    inner = (column > 1) & (column < width - 2) & (row > 1) & (row < height - 2)
    # peaks at the border use the centre of the map, so that the neighbours below always exist; they are not refined
    centre = torch.where(inner, best, torch.full_like(best, (height // 2) * width + width // 2))

    def at(dx: int, dy: int) -> Tensor:
        return log.gather(-1, (centre + dy * width + dx).clamp(0, height * width - 1)[..., None])[..., 0]

    gx, gy = 0.5 * (at(1, 0) - at(-1, 0)), 0.5 * (at(0, 1) - at(0, -1))
    hxx = 0.25 * (at(2, 0) - 2 * at(0, 0) + at(-2, 0))
    hyy = 0.25 * (at(0, 2) - 2 * at(0, 0) + at(0, -2))
    hxy = 0.25 * (at(1, 1) - at(1, -1) - at(-1, 1) + at(-1, -1))
    determinant = hxx * hyy - hxy**2
    refined = inner & (determinant != 0)
    divisor = torch.where(refined, determinant, torch.ones_like(determinant))
    step = torch.stack([hxy * gy - hyy * gx, hxy * gx - hxx * gy], dim=-1) / divisor[..., None]

    cell = cell + torch.where(refined[..., None], step, torch.zeros_like(step))
    cell = torch.where(scores[..., None] > 0, cell, torch.full_like(cell, -1))
    return cell / _width_height((height, width), heatmaps), scores


def keypoints_to_image(keypoints: Tensor, warp: Tensor, input_size: tuple[int, int]) -> Tensor:
    """Joints of crops in pixels of their images.

    Args:
        keypoints: (N, K, 2) in [0, 1] of the crop.
        warp: (N, 2, 3) affine matrices from image pixels to crop pixels.
        input_size: (H, W) of the crop.

    Returns:
        (N, K, 2) image pixels.
    """
    warp = warp.float()
    shifted = keypoints.float() * _width_height(input_size, keypoints) - warp[:, None, :, 2]
    x, y = shifted.unbind(dim=-1)
    (a, b), (c, d) = (row.unbind(dim=-1) for row in warp[:, None, :, :2].unbind(dim=-2))
    return torch.stack([d * x - b * y, a * y - c * x], dim=-1) / (a * d - b * c)[..., None]


def _width_height(size: tuple[int, int], like: Tensor) -> Tensor:
    """(H, W) as a float32 tensor (W, H), the order of coordinates."""
    return torch.tensor([size[1], size[0]], dtype=torch.float32, device=like.device)


def _gaussian_blur(maps: Tensor, kernel: int) -> Tensor:
    """Separable Gaussian with OpenCV's default sigma for that kernel, zero padding.

    Shifted sums instead of a convolution: convolutions run in TF32 or bf16 under common settings, which is too coarse
    for the logarithm.
    """
    sigma = 0.3 * ((kernel - 1) * 0.5 - 1) + 0.8
    reach = kernel // 2
    # Python numbers, which become constants of an exported graph
    taps = [math.exp(-(shift**2) / (2 * sigma**2)) for shift in range(-reach, reach + 1)]
    weights = [tap / sum(taps) for tap in taps]
    for axis in (-1, -2):
        length = maps.shape[axis]
        padded = F.pad(maps, (reach, reach) if axis == -1 else (0, 0, reach, reach))
        maps = torch.zeros_like(maps)
        for shift, weight in enumerate(weights):
            maps = maps + weight * padded.narrow(axis, shift, length)
    return maps
