"""What a training crop goes through: mirror, half body, shift, scale, rotation, then photometric changes.

The geometric part is drawn first and folded into the one affine map of the crop, so the image is resampled once. It is
our own because a left-right swap of joints is needed and joints out of the frame must be kept. The photometric part is
albumentations', on the finished crop. Nothing else in the package knows that library.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from distilpose.data.geometry import Region, region_of_box, warp_of_region
from distilpose.errors import DistilPoseError
from distilpose.skeleton import Skeleton

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # else its import asks the network for a newer version


class View(NamedTuple):
    """How one person is shown once.

    Attributes:
        warp: (2, 3) image pixels to crop pixels.
        flipped: whether the map mirrors the image, so that left and right joints must change places.
        seed: of the photometric changes.
    """

    warp: NDArray[np.float64]
    flipped: bool
    seed: int


@dataclass
class PoseAugmentation:
    """Random view of a person, by default with the numbers of the DistilPose release.

    A seed decides the view, photometric changes included. In training it comes from the sampler; where none is given, from
    torch's generator of the process.

    Attributes:
        flip_prob: probability to mirror.
        half_body_prob: probability to show only the upper or the lower body of a person.
        half_body_min_joints: only for persons with more labelled joints than this.
        half_body_upper_prob: probability of the upper body, given enough joints there; the release draws a normal
            number below 0.5, which is this.
        half_body_padding: factor on the box of the chosen joints.
        shift_prob: probability to move the box.
        shift: the most it is moved, as a share of its width and height. The release draws this once per run for every
            box; here it is drawn each time.
        scale: the box is resized by clip(1 + scale x N(0, 1), 1 - scale, 1 + scale).
        rotation_prob: probability to turn.
        rotation: degrees; the turn is clip(rotation x N(0, 1), ± 2 rotation).
        photometric: albumentations transforms for the crop (uint8 RGB). They see no joints, so only such as leave
            joints where they are; cut-outs leave joints they hide labelled.
    """

    flip_prob: float = 0.5
    half_body_prob: float = 0.3
    half_body_min_joints: int = 8
    half_body_upper_prob: float = 0.6915
    half_body_padding: float = 1.5
    shift_prob: float = 0.3
    shift: float = 0.2
    scale: float = 0.35
    rotation_prob: float = 0.6
    rotation: float = 45.0
    photometric: Sequence[Any] = ()

    def __post_init__(self):
        """Check the ranges, and join the photometric transforms."""
        for name in ("flip_prob", "half_body_prob", "half_body_upper_prob", "shift_prob", "rotation_prob"):
            if not 0 <= getattr(self, name) <= 1:
                raise DistilPoseError(f"Augmentation {name} is {getattr(self, name)}, expected 0 to 1.")
        if not 0 <= self.scale < 1:
            raise DistilPoseError(f"Augmentation scale is {self.scale}, expected 0 to below 1.")
        self._compose = _compose(self.photometric) if self.photometric else None

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
            image_width: pixels, for mirroring.
            input_size: (H, W) of the crop.
            skeleton: says which joints make the upper body.
            padding: factor on the box, where the whole body is shown.
            seed: of all that is drawn; by default drawn from torch's generator.
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

    def change_colours(self, crop: NDArray, seed: int) -> NDArray:
        """The (H, W, 3) RGB crop after the photometric transforms, drawn from `seed`."""
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
        """The region of the upper or the lower body's joints about their mean; None if neither has two joints."""
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


def _compose(transforms: Sequence[Any]) -> Any:
    """One transform of many; albumentations is imported here because runs without it need not wait for that."""
    import albumentations

    return albumentations.Compose(list(transforms))
