"""Object keypoint similarity (OKS), COCO's similarity of two poses, and non-maximum suppression by OKS."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

PADDING = 1.25


def oks(
    predicted: Tensor,
    target: Tensor,
    area: Tensor,
    sigmas: Sequence[float] | Tensor,
    labelled: Tensor | None = None,
) -> Tensor:
    """OKS of poses: the mean over joints of exp(-d^2 / (2 area (2 sigma)^2)).

    All arguments broadcast against each other, so `oks(a[:, None], b[None], ...)` gives all pairs.

    Args:
        predicted: (..., K, 2) image pixels.
        target: (..., K, 2) image pixels.
        area: (...) area of the person in square pixels.
        sigmas: (K,) constants of the skeleton.
        labelled: (..., K) joints to count; all joints by default.

    Returns:
        (...) in [0, 1]; 0 if no joint is labelled.
    """
    variances = (2 * torch.as_tensor(sigmas, dtype=predicted.dtype, device=predicted.device)) ** 2
    tiny = torch.finfo(torch.float64).eps
    distance = ((predicted - target) ** 2).sum(-1)
    joint_oks = torch.exp(-distance / variances / (area[..., None] + tiny) / 2)
    if labelled is None:
        return joint_oks.mean(-1)
    counted = (labelled > 0).to(joint_oks.dtype)
    return (joint_oks * counted).sum(-1) / counted.sum(-1).clamp(min=1)


def padded_area(bbox: Tensor, input_size: Sequence[int], padding: float = PADDING) -> Tensor:
    """Area of the crop of a box: the box extended to the aspect ratio of the crop, then padded.

    The published implementation uses this area in OKS-NMS, because a detector does not know the area of the outline.

    Args:
        bbox: (N, 4) x, y, width, height in image pixels.
        input_size: (H, W) of the crop.
        padding: factor on the box.

    Returns:
        (N,) square pixels.
    """
    aspect = input_size[1] / input_size[0]
    width = torch.maximum(bbox[:, 2], bbox[:, 3] * aspect)
    return (width * padding) * (width / aspect * padding)


def oks_nms(
    keypoints: Tensor,
    scores: Tensor,
    areas: Tensor,
    sigmas: Sequence[float] | Tensor,
    threshold: float = 0.9,
) -> Tensor:
    """Remove duplicates of a pose within one image (greedy non-maximum suppression).

    In order of falling score, each pose is kept and removes all later poses whose OKS with it is above the threshold.
    This OKS counts all joints and uses the mean of both areas. Of equal scores the later pose comes first.

    Args:
        keypoints: (N, K, 2) image pixels.
        scores: (N,) score of each pose.
        areas: (N,) square pixels, see `padded_area`.
        sigmas: (K,) constants of the skeleton.
        threshold: OKS above which two poses are duplicates.

    Returns:
        (M,) int64 indices of the kept poses, best first.
    """
    keypoints, areas = keypoints.double(), areas.double()
    order = torch.argsort(scores, stable=True).flip(0)
    pairs = oks(keypoints[:, None], keypoints[None], (areas[:, None] + areas[None]) / 2, sigmas) > threshold
    same = pairs[order][:, order].cpu().numpy()
    alive = same.diagonal() | True
    for index in range(len(same)):
        if alive[index]:
            alive[index + 1 :] &= ~same[index, index + 1 :]
    return order[torch.from_numpy(alive).to(order.device)]


def oks_nms_per_image(
    keypoints: Tensor,
    scores: Tensor,
    areas: Tensor,
    image_id: Tensor,
    sigmas: Sequence[float] | Tensor,
    threshold: float = 0.9,
) -> Tensor:
    """`oks_nms` within each image: (M,) indices of the kept poses, ordered by image id, then best first."""
    order = torch.argsort(image_id, stable=True)
    _, counts = torch.unique_consecutive(image_id[order], return_counts=True)
    groups = torch.split(order, counts.tolist())
    kept = [g[oks_nms(keypoints[g], scores[g], areas[g], sigmas, threshold)] for g in groups if len(g)]
    return torch.cat(kept) if kept else order
