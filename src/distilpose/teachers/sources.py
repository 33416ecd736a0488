"""What can be recorded: BlazePose, and any heat-map checkpoint of this package, each in the crop that suits it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from distilpose.data.geometry import Region, region_of_box, warp_image, warp_of_region
from distilpose.errors import check_number
from distilpose.models import PoseModel
from distilpose.skeleton import Skeleton
from distilpose.teachers.blazepose import CELLS, LIMBS, SIDE, BlazePose, BlazePoseOutput
from distilpose.teachers.frozen import floor_of, peak_confidence


class Answer(NamedTuple):
    """What a source says of N persons.

    Attributes:
        heatmaps: (N, K, h, w) float32 with a peak near 1.
        warps: (N, 2, 3) affine matrices from image pixels to cells of the map.
        trust: (N, K) in [0, 1], how likely the map's peak lies on the joint.
    """

    heatmaps: NDArray[np.float32]
    warps: NDArray[np.float64]
    trust: NDArray[np.float32]


class Source(Protocol):
    """A pose network that finds its own view of a person.

    Attributes:
        name: for files and messages.
        skeleton: its K joints.
        map_size: rows and columns of its maps.
        about: what its answers depend on, in plain containers; a recording is only continued by the same.
    """

    name: str
    skeleton: Skeleton
    map_size: tuple[int, int]
    about: dict[str, Any]

    def __call__(self, images: Sequence[NDArray[np.uint8]], boxes: NDArray[np.float64]) -> Answer:
        """What it says of a person in each of N images (H, W, 3), blue first, with boxes (N, 4) x, y, width, height."""


class BlazePoseSource:
    """BlazePose in the view it was trained for: the body upright, the middle of the hips in the crop's centre.

    MediaPipe gets that view from a detector. Here the person's box is shown at several turns, the one with the highest
    peaks is taken, and the network's own two body points then give the view to look again in, by MediaPipe's rule: centre
    at the hips, side 2.5 times the circle's radius, its upper point straight up. Of these views again the one with the
    highest peaks counts. Trust is the peak: on Leeds Sports a peak of 0.3 is right in a third of the cases, one of 0.9 in
    nine tenths.

    Args:
        model: the network.
        turns: how many turns of the box are tried, evenly spread over the circle.
        passes: how often it looks again.
        padding: factor on the box for the turns.
        pool: cells of a map that become one, along each side. Two cost nothing measurable and leave a quarter to store.
    """

    name = "blazepose"

    def __init__(self, model: BlazePose, turns: int = 8, passes: int = 2, padding: float = 1.5, pool: int = 2):
        check_number("teacher.turns", turns, least=1, whole=True)
        check_number("teacher.passes", passes, least=0, whole=True)
        self.model = model
        self.turns, self.passes, self.padding, self.pool = turns, passes, padding, pool
        self.skeleton = model.skeleton
        self.map_size = (CELLS // pool, CELLS // pool)
        views = {"turns": turns, "passes": passes, "padding": padding, "pool": pool}
        self.about = {"name": self.name, "sha256": model.digest, **views}

    def __call__(self, images: Sequence[NDArray[np.uint8]], boxes: NDArray[np.float64]) -> Answer:
        """What it says of a person in each of N images; see `Source`."""
        looks = [self._best(image, box) for image, box in zip(images, boxes, strict=True)]
        heatmaps = np.stack([look.output.heatmaps for look in looks])
        pooled = self._pooled(heatmaps)
        pooled /= np.maximum(pooled.max(axis=(-2, -1), keepdims=True), 1e-6)
        return Answer(pooled, np.stack([self._cells(look.warp) for look in looks]), heatmaps.max(axis=(-2, -1)))

    def _best(self, image: NDArray[np.uint8], box: NDArray[np.float64]) -> _Look:
        region = region_of_box(box, (SIDE, SIDE), self.padding)
        turned = [self._look(image, region, 360 * turn / self.turns) for turn in range(self.turns)]
        best = latest = max(turned, key=lambda look: look.quality)
        again: list[_Look] = []
        for _ in range(self.passes):
            side = 2.5 * float(np.linalg.norm(latest.body[1] - latest.body[0]))
            # a body point gone astray: the box knows better
            if not 0.25 <= side / float(region.size[0]) <= 4:
                break
            across, down = latest.body[1] - latest.body[0]
            own = Region(latest.body[0].astype(np.float32), np.full(2, side, dtype=np.float32))
            latest = self._look(image, own, float(np.degrees(np.arctan2(across, -down))))
            again.append(latest)
        return max(again, key=lambda look: look.quality, default=best)

    def _look(self, image: NDArray[np.uint8], region: Region, turn: float) -> _Look:
        warp = warp_of_region(region, (SIDE, SIDE), turn)
        crop = cv2.cvtColor(warp_image(image, warp, (SIDE, SIDE)), cv2.COLOR_BGR2RGB)
        output = self.model(crop)  # type: ignore[arg-type]
        back = cv2.invertAffineTransform(warp)
        quality = float(output.peaks[list(LIMBS)].mean())
        return _Look(output, output.body @ back[:, :2].T + back[:, 2], warp, quality)

    def _cells(self, warp: NDArray[np.float64]) -> NDArray[np.float64]:
        """Image pixels to cells: a crop pixel is 4 times the cell less a half, and pooled cells lie between theirs."""
        cells = warp * (CELLS / SIDE)
        cells[:, 2] += 0.5 * CELLS / SIDE
        cells = cells / self.pool
        cells[:, 2] -= (self.pool - 1) / (2 * self.pool)
        return cells

    def _pooled(self, heatmaps: NDArray[np.float32]) -> NDArray[np.float32]:
        count, joints = heatmaps.shape[:2]
        rows, columns = self.map_size
        return heatmaps.reshape(count, joints, rows, self.pool, columns, self.pool).mean(axis=(3, 5))


class _Look(NamedTuple):
    """BlazePose's answer in one view: all of it, the body points in image pixels, the view's warp, the limbs' mean peak."""

    output: BlazePoseOutput
    body: NDArray[np.float64]
    warp: NDArray[np.float64]
    quality: float


class CheckpointSource:
    """A teacher of this package in a crop of its own size, whatever the student's. Trust is its `peak_confidence`.

    Args:
        model: gives heat maps.
        digest: of the file it came from.
        padding: factor on the box around a person, as in its training.
        device: to run it on.
    """

    def __init__(self, model: PoseModel, digest: str, padding: float = 1.25, device: torch.device | str = "cpu"):
        self.model = model.eval().to(device)
        self.name, self.skeleton = model.name, model.skeleton
        self.map_size = (int(model.heatmap_size[0]), int(model.heatmap_size[1]))
        self.padding, self.device = padding, torch.device(device)
        self._mean, self._std = np.array(model.mean), np.array(model.std)
        size = list(model.input_size)
        self.about = {
            "name": self.name, "sha256": digest, "input_size": size, "padding": padding, "floor": floor_of(model)
        }  # fmt: skip

    @torch.no_grad()
    def __call__(self, images: Sequence[NDArray[np.uint8]], boxes: NDArray[np.float64]) -> Answer:
        """What it says of a person in each of N images; see `Source`."""
        size = (int(self.model.input_size[0]), int(self.model.input_size[1]))
        warps = [warp_of_region(region_of_box(box, size, self.padding), size) for box in boxes]
        crops = [warp_image(image, warp, size)[..., ::-1] for image, warp in zip(images, warps, strict=True)]
        pixels = (np.stack(crops).astype(np.float32) / 255 - self._mean) / self._std
        batch = torch.from_numpy(pixels.astype(np.float32)).permute(0, 3, 1, 2).to(self.device)
        heatmaps = self.model(batch).heatmaps.float().cpu()
        trust = peak_confidence(heatmaps, softmax=floor_of(self.model) == 0)
        per_cell = size[1] / self.map_size[1]
        return Answer(heatmaps.numpy(), np.stack(warps) / per_cell, trust.numpy())
