"""A perfect teacher for photographs of coloured dots: it finds each dot's centre and draws it in its convention."""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from distilpose.data import CocoKeypoints
from distilpose.data.geometry import region_of_box, warp_image, warp_of_region
from distilpose.outputs import IMAGENET_MEAN, IMAGENET_STD, PoseBatch
from distilpose.skeleton import Skeleton
from distilpose.teachers.convention import Convention
from distilpose.teachers.module import ModuleNetwork

# a small student, to set on a teacher
SMALL = {"depth": 1, "widths": [8, 8, 8, 8], "out_channels": 8, "width": 16, "heads": 2}
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


def write_persons(
    folder: Path, names: Sequence[str] = FACE.names, count: int = 8
) -> tuple[CocoKeypoints, NDArray[np.float64]]:
    """Photographs of three dots, and boxes in which these are well inside every crop: data set, and joints (N, 3, 2)."""
    draw = np.random.default_rng(0)
    images, people, joints = [], [], []
    for number in range(count):
        width, height = draw.uniform(100, 180, 2)
        x, y = draw.uniform(60, 120, 2)
        places = np.array([x, y]) + draw.uniform(0.25, 0.75, (3, 2)) * (width, height)
        write_dots(folder / f"{number}.png", places, (360, 400))
        images.append({"id": number, "file_name": f"{number}.png", "height": 360, "width": 400})
        row = [value for u, v in places for value in (u, v, 2)]
        people.append(
            {"id": number + 1, "image_id": number, "category_id": 1, "bbox": [x, y, width, height], "keypoints": row,
             "area": width * height, "num_keypoints": 3, "iscrowd": 0}
        )  # fmt: skip
        joints.append(places)
    category = {"id": 1, "name": "face", "keypoints": list(names), "skeleton": []}
    path = folder / "dots.json"
    path.write_text(json.dumps({"images": images, "annotations": people, "categories": [category]}))
    return CocoKeypoints(path, folder, input_size=(256, 192)), np.stack(joints)


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


NETWORKS = {
    "release": (Convention.by_ratio((256, 192), (64, 48)), None),
    "release, larger": (Convention.by_ratio((384, 288), (96, 72)), None),
    "udp": (Convention.udp((256, 192), (64, 48)), None),
    "simcc": (Convention.by_ratio((256, 192), (64, 48)), 2.0),
    "simcc, no whole cells": (Convention((250, 190), (63, 48), (4.0, 4.0)), 2.0),
    "square with an offset": (Convention.by_ratio((256, 256), (64, 64), padding=1.0, offset=1.5), None),
    "square, udp, coarse": (Convention.udp((256, 256), (32, 32), padding=1.5), None),
}


def make_network(kind: str, names: Sequence[str] = FACE.names) -> ModuleNetwork:
    """The perfect teacher; its convention is the stated one, not what would be read from shapes."""
    convention, ratio = NETWORKS[kind]
    rule = "udp" if convention.unbiased else "ratio"
    finder = DotFinder(convention, ratio)
    network = ModuleNetwork(finder, kind, convention.input_size, names, rule, convention.padding)
    if max(convention.offset) == 0:
        assert network.convention == convention
    network.convention = convention
    return network


def views(dataset, joints, size, mirrored: bool, rotation: float) -> tuple[PoseBatch, Tensor]:
    """A batch of the persons in views of a student, and the truth in cells of its maps.

    In a mirrored view the left eye is where the right one was; the colours are exchanged, as a person's look would be.
    """
    crops, warps = [], []
    order = FACE.flip_order if mirrored else [0, 1, 2]
    for number, box in enumerate(dataset.instances.boxes):
        image = dataset.read_image(int(dataset.instances.image_ids[number]))
        box = box.copy()
        if mirrored:
            box[0] = image.shape[1] - 1 - box[0] - box[2]
        region = region_of_box(box, size, 1.4)
        warp = warp_of_region(region, size, rotation, image.shape[1] if mirrored else None)
        crop = warp_image(image, warp, size)[..., ::-1].astype(np.float32) / 255
        crops.append((crop[..., order] - IMAGENET_MEAN) / IMAGENET_STD)
        warps.append(warp)
    images = torch.from_numpy(np.stack(crops)).float().permute(0, 3, 1, 2)
    matrices = np.stack(warps)
    pixels = np.einsum("nij,nkj->nki", matrices[:, :, :2], joints) + matrices[:, None, :, 2]
    truth = torch.from_numpy(pixels[:, order] / 4).float()
    count, ones = len(crops), torch.ones(len(crops), 3)
    ids = torch.as_tensor(dataset.instances.annotation_ids)
    batch = PoseBatch(
        images, truth * 4 / truth.new_tensor([size[1], size[0]]), ones, ones, torch.from_numpy(matrices), ids, ids,
        torch.from_numpy(dataset.instances.boxes), torch.ones(count),
    )  # fmt: skip
    return batch, truth


def expectation(maps: Tensor) -> Tensor:
    """(N, K, 2) mean x and y of maps read as distributions."""
    total = maps.sum(dim=(-2, -1))
    x = (maps.sum(-2) * torch.arange(maps.shape[-1])).sum(-1) / total
    y = (maps.sum(-1) * torch.arange(maps.shape[-2])).sum(-1) / total
    return torch.stack([x, y], dim=-1)


def build() -> DotFinder:
    """The perfect network in the release's convention, for `teacher=module teacher.target=dots.build`."""
    return DotFinder(NETWORKS["release"][0])


def export_onnx(
    module: nn.Module,
    path: Path,
    input_size: tuple[int, int] = (256, 192),
    batch: int | None = None,
    names: Sequence[str] | None = None,
    dtype: torch.dtype = torch.float32,
    last: bool = False,
    free: bool = False,
) -> Path:
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
