"""Augmentation of training crops: flip, half body, shift, scale, rotation, then photometric transforms.

The geometric part is drawn first and folded into the affine map of the crop, so that the image is resampled only once.
It is our own code because it swaps left and right joints and keeps joints outside the frame, which albumentations does
not. The photometric part is albumentations', on the finished crop. No other module imports that library.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, NamedTuple

import numpy as np
import torch
from annotated_types import Ge, Gt, Le, Lt, Unit
from numpy.typing import NDArray

from distilpose.data.geometry import Region, region_of_box, warp_of_region
from distilpose.skeleton import Skeleton

# Its import looks for a newer version online unless this is set. It is set here because Hydra imports this module, and
# right after it albumentations, when it instantiates `photometric`.
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

Probability = Annotated[float, Ge(0), Le(1)]


class View(NamedTuple):
    """One random view of a person.

    Attributes:
        warp: (2, 3) image pixels to crop pixels.
        flipped: whether the map mirrors the image, so that left and right joints must be swapped.
        seed: seed of the photometric transforms.
    """

    warp: NDArray[np.float64]
    flipped: bool
    seed: int


@dataclass
class PoseAugmentation:
    """Random views of persons, by default with the numbers of the DistilPose release.

    A seed decides the view, photometric transforms included. In training the sampler gives the seed; without one it is
    drawn from torch's generator of the process.

    Attributes:
        flip_prob: probability of a horizontal flip.
        half_body_prob: probability of showing only the upper or the lower body.
        half_body_min_joints: half bodies are only drawn of persons with more labelled joints than this.
        half_body_upper_prob: probability of the upper body, if it has enough joints. The default is the release's,
            P(N(0, 1) < 0.5).
        half_body_padding: factor on the box of the chosen joints.
        shift_prob: probability of moving the box.
        shift: largest move, as a share of the box's width and height. The release draws one move per run for all boxes;
            here it is drawn for each view.
        scale: the box is resized by clip(1 + scale x N(0, 1), 1 - scale, 1 + scale).
        rotation_prob: probability of a rotation.
        rotation: standard deviation of the angle, clip(rotation x N(0, 1), ± 2 rotation).
        photometric: albumentations transforms of the crop (uint8 RGB). They get no joints, so use only transforms that
            keep joints in place; joints hidden by a cut-out stay labelled.
    """

    flip_prob: Probability = 0.5
    half_body_prob: Probability = 0.3
    half_body_min_joints: Annotated[int, Ge(0)] = 8
    half_body_upper_prob: Probability = 0.6915
    half_body_padding: Annotated[float, Gt(0)] = 1.5
    shift_prob: Probability = 0.3
    shift: Annotated[float, Ge(0)] = 0.2
    scale: Annotated[float, Ge(0), Lt(1)] = 0.35
    rotation_prob: Probability = 0.6
    rotation: Annotated[float, Ge(0), Unit("degrees")] = 45.0
    photometric: Sequence[Any] = ()

    def __post_init__(self):
        """Compose the photometric transforms."""
        self._compose = None
        if self.photometric:
            import albumentations  # here because most runs do not need it, and it is slow to import

            self._compose = albumentations.Compose(list(self.photometric))

    def view(
        self,
        bbox: NDArray,
        keypoints: NDArray,
        labelled: NDArray[np.bool_],
        image_width: int,
        input_size: tuple[int, int],
        skeleton: Skeleton,
        padding: float = 1.25,
        seed: int | None = None,
    ) -> View:
        """A random view of a person.

        Args:
            bbox: (4,) x, y, width, height in image pixels.
            keypoints: (K, 2) image pixels.
            labelled: (K,) whether the joint is labelled.
            image_width: pixels, for the flip.
            input_size: (H, W) of the crop.
            skeleton: gives the joints of the upper body.
            padding: factor on the box of a complete body.
            seed: seed of the view; by default drawn from torch's generator.
        """
        if seed is None:
            seed = int(torch.randint(2**31 - 1, ()))
        draw = np.random.default_rng(seed)
        region = region_of_box(bbox, input_size, padding)
        if draw.random() < self.shift_prob:
            region = region._replace(centre=region.centre + draw.uniform(-self.shift, self.shift, 2) * bbox[2:])
        flipped = bool(draw.random() < self.flip_prob)
        if labelled.sum() > self.half_body_min_joints and draw.random() < self.half_body_prob:
            region = self._half_body(draw, keypoints, labelled, input_size, skeleton) or region
        factor = np.clip(1 + self.scale * draw.standard_normal(), 1 - self.scale, 1 + self.scale)
        turn = np.clip(self.rotation * draw.standard_normal(), -2 * self.rotation, 2 * self.rotation)
        rotation = float(turn) if draw.random() < self.rotation_prob else 0.0
        centre = region.centre.astype(np.float32)
        if flipped:
            centre = np.array([image_width - 1 - centre[0], centre[1]], dtype=np.float32)
        region = Region(centre, (region.size * factor).astype(np.float32))
        warp = warp_of_region(region, input_size, rotation, image_width if flipped else None)
        return View(warp, flipped, seed)

    def apply_photometric(self, crop: NDArray, seed: int) -> NDArray:
        """Apply the photometric transforms of `seed` to an (H, W, 3) RGB crop."""
        if self._compose is None:
            return crop
        self._compose.set_random_seed(seed)
        return self._compose(image=crop)["image"]

    def _half_body(
        self,
        draw: np.random.Generator,
        keypoints: NDArray,
        labelled: NDArray[np.bool_],
        input_size: tuple[int, int],
        skeleton: Skeleton,
    ) -> Region | None:
        """Region of the upper or the lower body's joints, centred on their mean; None if neither has two joints."""
        is_upper = np.zeros(len(labelled), dtype=bool)
        is_upper[list(skeleton.upper_body)] = True
        upper, lower = keypoints[labelled & is_upper], keypoints[labelled & ~is_upper]
        wants_upper = draw.random() < self.half_body_upper_prob
        chosen = lower if len(lower) > 2 and not (wants_upper and len(upper) > 2) else upper
        if len(chosen) < 2:
            return None
        corner, opposite = chosen.min(axis=0), chosen.max(axis=0)
        if not (opposite > corner).any():
            return None
        region = region_of_box([*corner, *(opposite - corner)], input_size, self.half_body_padding)
        return region._replace(centre=chosen.mean(axis=0))
