"""A perfect teacher for photographs of coloured dots: it finds each dot's centre and draws it in its convention."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from distilpose.outputs import IMAGENET_MEAN, IMAGENET_STD
from distilpose.skeleton import Skeleton
from distilpose.teachers.convention import Convention

# red, green and blue dot
FACE = Skeleton.from_names(["left_eye", "right_eye", "nose"])


def draw_dots(joints: NDArray[np.float64], size: tuple[int, int], sigma: float = 4.0) -> NDArray[np.uint8]:
    """An RGB image of (H, W) with a Gaussian dot at each of three joints (x, y)."""
    y, x = np.mgrid[: size[0], : size[1]]
    dots = [255 * np.exp(-((x - u) ** 2 + (y - v) ** 2) / (2 * sigma**2)) for u, v in joints]
    return np.stack(dots, -1).round().astype(np.uint8)


def write_dots(path: Path, joints: NDArray[np.float64], size: tuple[int, int]) -> None:
    """Write `draw_dots` as a lossless image file."""
    cv2.imwrite(str(path), draw_dots(joints, size)[..., ::-1])


class DotFinder(nn.Module):
    """Maps (N, 3, h, w) with a Gaussian at each dot, or SimCC if a ratio is given.

    Args:
        convention: of the maps.
        ratio: bins of a pixel; None for maps.
        mean: that the crops are normalised by.
        std: the same.
        sigma: of the Gaussians in cells, or in pixels for SimCC.
    """

    def __init__(
        self,
        convention: Convention,
        ratio: float | None = None,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
        sigma: float = 2.0,
    ):
        super().__init__()
        self.convention, self.ratio, self.sigma = convention, ratio, sigma
        self.register_buffer("mean", torch.tensor(list(mean))[:, None, None])
        self.register_buffer("std", torch.tensor(list(std))[:, None, None])

    def places(self, crops: Tensor) -> Tensor:
        """(N, 3, 2) centres of the dots in pixels of the crop."""
        weight = crops * self.std + self.mean
        weight = weight * (weight > 0.02)
        total = weight.sum(dim=(2, 3)).clamp(min=1e-6)
        x = (weight.sum(dim=2) * torch.arange(crops.shape[3])).sum(-1) / total
        y = (weight.sum(dim=3) * torch.arange(crops.shape[2])).sum(-1) / total
        return torch.stack([x, y], dim=-1)

    def forward(self, crops: Tensor):
        """See the class."""
        places = self.places(crops)
        if self.ratio is not None:
            height, width = self.convention.input_size
            return tuple(
                self.peaks(places[..., axis] * self.ratio, int(extent * self.ratio), self.sigma * self.ratio)
                for axis, extent in ((0, width), (1, height))
            )
        (rows, columns), stride, offset = self.convention.map_size, self.convention.stride, self.convention.offset
        x, y = ((places[..., axis] - offset[axis]) / stride[axis] for axis in (0, 1))
        return self.peaks(y, rows, self.sigma)[..., :, None] * self.peaks(x, columns, self.sigma)[..., None, :]

    def peaks(self, at: Tensor, count: int, sigma: float) -> Tensor:
        """Gaussians (N, 3, count) at places (N, 3)."""
        return torch.exp(-((torch.arange(count) - at[..., None]) ** 2) / (2 * sigma**2))


def export_onnx(module, path, input_size=(256, 192), batch=None, names=None, dtype=torch.float32, last=False, free=False):
    """Write a network as an ONNX file, as other projects do.

    Args:
        module: the network.
        path: the file.
        input_size: (H, W) of its crops.
        batch: its fixed number; None for any.
        names: of its outputs.
        dtype: of its input.
        last: whether its input is (N, H, W, 3).
        free: whether the file takes crops of any size.
    """
    shape = (batch or 2, *input_size, 3) if last else (batch or 2, 3, *input_size)
    image = torch.rand(shape).to(dtype) if dtype.is_floating_point else torch.randint(0, 255, shape, dtype=dtype)
    dynamic = ({} if batch else {0: "batch"}) | ({2 - last: "height", 3 - last: "width"} if free else {})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module.eval(), (image,), path, dynamo=False, input_names=["input"], output_names=names,
            dynamic_axes={"input": dynamic, **({} if batch else {name: {0: "batch"} for name in names or ()})},
        )  # fmt: skip
    return path
