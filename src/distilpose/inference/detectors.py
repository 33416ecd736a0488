"""Where the persons of an image are: the whole image, or as torchvision's detector says."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol
from urllib.error import URLError

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from distilpose.errors import DistilPoseError, check_number
from distilpose.evaluation import choose_device
from distilpose.inference.photographs import Image
from distilpose.inference.sources import Boxes
from distilpose.models.checkpoint import read_torch_file


class Detector(Protocol):
    """Finds the persons of an image.

    Attributes:
        every: of a video's frames, the persons are looked for in every so-manieth; in between they are followed.
    """

    every: int

    def __call__(self, image: Image) -> Boxes:
        """The boxes of the persons on an RGB image, in its pixels."""
        ...


class WholeImage:
    """Takes each image as one person, who fills it."""

    every = 1

    def __call__(self, image: Image) -> Boxes:
        """One box as large as the image."""
        return Boxes(np.array([[0.0, 0.0, image.shape[1], image.shape[0]]]), np.ones(1))


class TorchvisionDetector:
    """A detector of torchvision trained on COCO; its weights are fetched on first use (76 MB for the default).

    Args:
        name: of torchvision.models.detection.
        file: weights fetched before, in place of torchvision's download.
        threshold: lowest score of a person.
        every: see `Detector`.
        device: auto, cpu, cuda, …

    Raises:
        DistilPoseError: there is no such detector, or its weights can neither be fetched nor read.
    """

    def __init__(
        self,
        name: str = "fasterrcnn_mobilenet_v3_large_320_fpn",
        file: str | Path | None = None,
        threshold: float = 0.5,
        every: int = 1,
        device: str = "auto",
    ) -> None:
        check_number("detector.threshold", threshold, least=0, most=1)
        check_number("detector.every", every, least=1, whole=True)
        self.every, self.threshold, self.device = every, threshold, choose_device(device)
        self.model = _torchvision_model(name, file).eval().to(self.device)

    @torch.no_grad()
    def __call__(self, image: Image) -> Boxes:
        """The persons whose score reaches the threshold, best first."""
        planes = torch.from_numpy(image).permute(2, 0, 1).float().div(255).to(self.device)
        (found,) = self.model([planes])
        corners, labels, scores = (found[key].cpu().double().numpy() for key in ("boxes", "labels", "scores"))
        chosen = (labels == 1) & (scores >= self.threshold)
        return inside(corners[chosen], scores[chosen], image.shape[:2])


def _torchvision_model(name: str, file: str | Path | None) -> nn.Module:
    from torchvision.models import detection as detectors
    from torchvision.models import get_model, list_models

    if name not in list_models(module=detectors):
        raise DistilPoseError(
            f"detector.name={name} is not known: expected one of {', '.join(list_models(detectors))}."
        )
    if file is not None and not Path(file).is_file():
        raise DistilPoseError(
            f"detector.file={file} does not exist: give the weights of {name} that torchvision offers."
        )
    if file is None:
        try:
            return get_model(name, weights="DEFAULT")
        except (URLError, OSError, RuntimeError) as error:
            raise DistilPoseError(
                f"The weights of {name} cannot be fetched ({error}): fetch them on a machine with a network (torchvision's "
                "page of that model has the address) and give detector.file=FILE, or give boxes=FILE."
            ) from error
    model = get_model(name, weights=None, weights_backbone=None)
    state = read_torch_file(Path(file))
    try:
        model.load_state_dict(state)
    except (RuntimeError, TypeError, AttributeError) as error:
        raise DistilPoseError(
            f"{file} does not hold the weights of {name}: give the file torchvision offers."
        ) from error
    return model


def inside(corners: NDArray, scores: NDArray, size: Sequence[int]) -> Boxes:
    """Corners (N, 4) as boxes x, y, width, height, cut to the image of (H, W); those outside it are dropped."""
    limit = np.array([size[1], size[0], size[1], size[0]], dtype=np.float64)
    cut = np.clip(np.nan_to_num(corners), 0, limit)
    boxes = np.concatenate([cut[:, :2], cut[:, 2:] - cut[:, :2]], axis=1)
    good = (boxes[:, 2:] > 1).all(1) & np.isfinite(corners).all(1) & np.isfinite(scores)
    return Boxes(boxes[good], scores[good].astype(np.float64))
