"""Detectors of persons: the whole image as one person, or a detector of torchvision."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Protocol
from urllib.error import URLError

import numpy as np
import torch
from annotated_types import Ge, Le
from numpy.typing import NDArray
from torch import nn

from distilpose.errors import DistilPoseError
from distilpose.evaluation import choose_device
from distilpose.inference.boxes import Boxes
from distilpose.inference.images import Image
from distilpose.models.checkpoint import read_torch_file


class Detector(Protocol):
    """Finds the persons on an image.

    Attributes:
        every: the detector runs on every N-th frame of a video; other frames use boxes around the last poses.
    """

    every: int

    def __call__(self, image: Image) -> Boxes:
        """The boxes of the persons on an RGB image, in its pixels."""
        ...


class WholeImage:
    """Assumes that each image shows one person who fills it."""

    every = 1

    def __call__(self, image: Image) -> Boxes:
        """One box as large as the image."""
        return Boxes(np.array([[0.0, 0.0, image.shape[1], image.shape[0]]]), np.ones(1))


class TorchvisionDetector:
    """A detector of torchvision trained on COCO; its weights are downloaded on first use (76 MB for the default).

    Args:
        name: a model of torchvision.models.detection.
        file: downloaded weights; null downloads them.
        threshold: lowest score of a person.
        every: run on every N-th frame of a video; other frames use boxes around the last poses.
        device: auto, cpu, cuda, ….

    Raises:
        DistilPoseError: torchvision has no such detector, or its weights cannot be downloaded or read.
    """

    def __init__(
        self,
        name: str = "fasterrcnn_mobilenet_v3_large_320_fpn",
        file: str | Path | None = None,
        threshold: Annotated[float, Ge(0), Le(1)] = 0.5,
        every: Annotated[int, Ge(1)] = 1,
        device: str = "auto",
    ) -> None:
        self.every, self.threshold, self.device = every, threshold, choose_device(device)
        self.model = _torchvision_model(name, file).eval().to(self.device)

    @torch.no_grad()
    def __call__(self, image: Image) -> Boxes:
        """The persons whose score reaches the threshold, best first."""
        planes = torch.from_numpy(image).permute(2, 0, 1).float().div(255).to(self.device)
        (output,) = self.model([planes])
        corners, labels, scores = (output[key].cpu().double().numpy() for key in ("boxes", "labels", "scores"))
        chosen = (labels == 1) & (scores >= self.threshold)
        return clip_to_image(corners[chosen], scores[chosen], image.shape[:2])


def _torchvision_model(name: str, file: str | Path | None) -> nn.Module:
    from torchvision.models import detection, get_model, list_models

    if name not in (known := list_models(module=detection)):
        raise DistilPoseError(
            f"detector.name={name} is not a detector of torchvision: expected one of {', '.join(known)}."
        )
    if file is None:
        try:
            return get_model(name, weights="DEFAULT")
        except (URLError, OSError, RuntimeError) as error:
            raise DistilPoseError(
                f"The weights of {name} cannot be downloaded ({error}): download them on a machine with a network "
                "(torchvision's page of the model has the address) and give detector.file=FILE, or give boxes=FILE."
            ) from error
    model = get_model(name, weights=None, weights_backbone=None)
    try:
        model.load_state_dict(read_torch_file(Path(file)))
    except (RuntimeError, TypeError, AttributeError) as error:
        raise DistilPoseError(
            f"detector.file={file} does not hold the weights of {name}: give the file that torchvision downloads."
        ) from error
    return model


def clip_to_image(corners: NDArray, scores: NDArray, size: Sequence[int]) -> Boxes:
    """Corners (N, 4) as boxes x, y, width, height, clipped to the image of (H, W); those outside it are dropped."""
    limit = np.array([size[1], size[0], size[1], size[0]], dtype=np.float64)
    clipped = np.clip(np.nan_to_num(corners), 0, limit)
    boxes = np.concatenate([clipped[:, :2], clipped[:, 2:] - clipped[:, :2]], axis=1)
    valid = (boxes[:, 2:] > 1).all(1) & np.isfinite(corners).all(1) & np.isfinite(scores)
    return Boxes(boxes[valid], scores[valid].astype(np.float64))
