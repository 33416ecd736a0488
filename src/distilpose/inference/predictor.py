"""Poses of the persons on a photograph, from their boxes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from distilpose.data.geometry import region_of_box, warp_image, warp_of_region
from distilpose.errors import DistilPoseError
from distilpose.evaluation import FlipTest, check_flip_test, choose_device, concatenate, predict_batch
from distilpose.models import load_model
from distilpose.models.model import PoseModel
from distilpose.outputs import PoseBatch, Predictions
from distilpose.skeleton import Skeleton


class Predictor:
    """A trained model that takes photographs as they are.

    Example:
        >>> predictor = Predictor("student.safetensors")
        >>> found = predictor(image, boxes=[[280, 44, 218, 346]])
        >>> found.keypoints  # (1, 17, 2) image pixels

    Args:
        model: a student or a teacher, or the file of one (.ckpt or .safetensors).
        device: "auto", "cpu", "cuda", "cuda:1", …
        batch_size: crops a forward pass.
        flip_test: average each crop with its mirror image; twice the time.
        padding: factor on the box around a person, as in training.
    """

    def __init__(
        self,
        model: PoseModel | str | Path,
        device: str = "auto",
        batch_size: int = 32,
        flip_test: FlipTest = False,
        padding: float = 1.25,
    ) -> None:
        self.flip_test = check_flip_test(flip_test)
        self.device = choose_device(device)
        loaded = load_model(model) if isinstance(model, (str, Path)) else model
        self.model = loaded.eval().to(self.device)
        self.batch_size = batch_size
        self.padding = padding

    @property
    def skeleton(self) -> Skeleton:
        """The joints found."""
        return self.model.skeleton

    @torch.no_grad()
    def __call__(
        self,
        image: NDArray[np.uint8],
        boxes: ArrayLike | None = None,
        scores: ArrayLike | None = None,
        image_id: int = 0,
    ) -> Predictions:
        """The pose in each box, in the order of the boxes.

        Args:
            image: (H, W, 3) uint8, RGB.
            boxes: (N, 4) x, y, width, height in image pixels; the whole image as one box if not given.
            scores: (N,) of the boxes; 1 if not given.
            image_id: the number the predictions carry.

        Raises:
            DistilPoseError: the image is not RGB uint8, or a box is empty or not finite.
        """
        if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            told = f"{image.dtype} {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__
            raise DistilPoseError(f"Expected an RGB image, uint8 of shape (height, width, 3), got {told}.")
        if boxes is None:
            boxes = [[0, 0, image.shape[1], image.shape[0]]]
        regions = np.asarray(boxes, dtype=np.float64).reshape(-1, 4)
        bad = ~(np.isfinite(regions).all(1) & (regions[:, 2:] > 0).all(1))
        if bad.any():
            raise DistilPoseError(
                f"Box {regions[bad][0].tolist()} is empty or not finite: expected x, y, width, height in pixels, "
                "with width and height above 0."
            )
        certain = np.ones(len(regions)) if scores is None else np.asarray(scores, dtype=np.float64)
        parts = [self._nobody(image_id)]
        for start in range(0, len(regions), self.batch_size):
            piece = slice(start, start + self.batch_size)
            batch = self._crops(image, regions[piece], certain[piece], image_id, start)
            parts += predict_batch(self.model, batch, [self.flip_test])
        return concatenate(parts)

    def _crops(self, image: NDArray[np.uint8], boxes: NDArray, scores: NDArray, image_id: int, first: int) -> PoseBatch:
        """The boxes' crops as a batch without labels, on the device."""
        size, count, joints = self.model.input_size, len(boxes), self.model.num_keypoints
        warps = [warp_of_region(region_of_box(box, size, self.padding), size) for box in boxes]
        crops = np.stack([warp_image(image, warp, size) for warp in warps])
        batch = PoseBatch(
            image=self._normalised(crops),
            keypoints=torch.zeros(count, joints, 2),
            weights=torch.zeros(count, joints),
            labelled=torch.zeros(count, joints),
            warp=torch.from_numpy(np.stack(warps)).float(),
            image_id=torch.full((count,), image_id),
            annotation_id=torch.arange(first, first + count),
            bbox=torch.from_numpy(boxes).float(),
            bbox_score=torch.from_numpy(scores).float(),
        )
        return PoseBatch(*(field.to(self.device) for field in batch))

    def _normalised(self, crops: NDArray[np.uint8]) -> Tensor:
        """(N, H, W, 3) uint8 to (N, 3, H, W) float32 with the model's mean and deviation taken out."""
        mean, std = (torch.tensor(value).view(3, 1, 1) for value in (self.model.mean, self.model.std))
        return (torch.from_numpy(crops).permute(0, 3, 1, 2).float() / 255 - mean) / std

    def _nobody(self, image_id: int) -> Predictions:
        """No persons, in the right shapes: what an empty list of boxes gives."""
        joints = self.model.num_keypoints
        ids = torch.full((0,), image_id)
        return Predictions(
            torch.zeros(0, joints, 2), torch.zeros(0, joints), ids, ids, torch.zeros(0, 4), torch.zeros(0)
        )
