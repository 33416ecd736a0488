"""Where the persons of an image are: the whole image, torchvision's detector, or any ONNX detector by its file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol
from urllib.error import URLError

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from distilpose.errors import DistilPoseError, check_flag, check_number
from distilpose.evaluation import choose_device
from distilpose.inference.detector_outputs import LAYOUTS, read_outputs
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


class OnnxDetector:
    """A detector in an ONNX file, run by onnxruntime. What its input and outputs mean is told by the settings.

    Args:
        file: with one image input, (1, 3, H, W).
        layout: of the outputs, see `detector_outputs`: yolo, yolo_objectness, rows, or boxes_labels_scores.
        input_size: (H, W) for an input of free size; that of the file where it is fixed.
        letterbox: fit the image into the input with its proportions kept and grey (114) around; else it is stretched.
        scale: pixels, 0 to 255, are divided by it.
        mean: of RGB after that division, taken off.
        std: likewise, divided by.
        bgr: whether the file expects blue first.
        person: the class that is a person.
        box_format: xyxy (corners) or cxcywh (centre and size); null for the layout's own.
        relative: whether boxes are shares of the input's width and height, not its pixels.
        threshold: lowest score of a person.
        overlap: of two persons whose boxes' intersection over union is above it, the better is kept; null keeps all.
        every: see `Detector`.

    Raises:
        DistilPoseError: onnxruntime is not installed, the file is no such detector, or a setting is out of range.
    """

    def __init__(
        self,
        file: str | Path,
        layout: str = "yolo",
        input_size: Sequence[int] = (640, 640),
        letterbox: bool = True,
        scale: float = 255.0,
        mean: Sequence[float] = (0.0, 0.0, 0.0),
        std: Sequence[float] = (1.0, 1.0, 1.0),
        bgr: bool = False,
        person: int = 0,
        box_format: str | None = None,
        relative: bool = False,
        threshold: float = 0.4,
        overlap: float | None = 0.6,
        every: int = 1,
    ) -> None:
        if layout not in LAYOUTS:
            raise DistilPoseError(f"detector.layout={layout} is not known: expected one of {', '.join(LAYOUTS)}.")
        if box_format not in (None, "xyxy", "cxcywh"):
            raise DistilPoseError(f"detector.box_format={box_format} is not known: expected xyxy, cxcywh or null.")
        check_number("detector.threshold", threshold, least=0, most=1)
        check_number("detector.scale", scale, above=0)
        check_number("detector.every", every, least=1, whole=True)
        check_flag("detector.letterbox", letterbox)
        self.file, self.layout, self.letterbox, self.bgr = file, layout, letterbox, bgr
        self.scale, self.mean, self.std = scale, np.array(mean, np.float32), np.array(std, np.float32)
        self.person, self.box_format, self.relative = person, box_format, relative
        self.threshold, self.overlap, self.every = threshold, overlap, every
        self.session = _session(file)
        given = self.session.get_inputs()[0]
        self.input_name, self.dtype = (
            given.name,
            {"tensor(float16)": np.float16, "tensor(uint8)": np.uint8}.get(given.type),
        )
        shape = list(given.shape)
        if len(shape) != 4 or (shape[1] not in (3, None) and not isinstance(shape[1], str)):
            raise DistilPoseError(f"{file} takes an input of shape {shape}: expected an image, (1, 3, height, width).")
        free = [side if isinstance(side, int) else None for side in shape[2:]]
        self.input_size = tuple(int(own or asked) for own, asked in zip(free, input_size, strict=True))

    def __call__(self, image: Image) -> Boxes:
        """The persons whose score reaches the threshold, best first."""
        planes, factors, offset = self._fit(image)
        outputs = self.session.run(None, {self.input_name: planes})
        found = read_outputs(outputs, self.layout, self.person, self.box_format, str(self.file))
        corners = found.corners * (np.tile(self.input_size[::-1], 2) if self.relative else 1.0)
        corners = (corners - np.tile(offset, 2)) / np.tile(factors, 2)
        chosen = found.scores >= self.threshold
        corners, scores = corners[chosen], found.scores[chosen]
        if self.overlap is not None and len(scores):
            from torchvision.ops import nms

            kept = nms(torch.from_numpy(corners), torch.from_numpy(scores), self.overlap).numpy()
            corners, scores = corners[kept], scores[kept]
        order = np.argsort(-scores, kind="stable")
        return inside(corners[order], scores[order], image.shape[:2])

    def _fit(self, image: Image) -> tuple[NDArray, NDArray, NDArray]:
        """The input (1, 3, H, W), and the factors and offsets (x, y) from image pixels to its pixels."""
        height, width = self.input_size
        factors = np.array([width / image.shape[1], height / image.shape[0]])
        if self.letterbox:
            factors[:] = factors.min()
        across, down = (max(1, round(image.shape[1 - axis] * factors[axis])) for axis in (0, 1))
        small = cv2.resize(image, (across, down), interpolation=cv2.INTER_LINEAR)
        left, top = (width - across) // 2, (height - down) // 2
        canvas = np.full((height, width, 3), 114, np.uint8)
        canvas[top : top + down, left : left + across] = small
        if self.bgr:
            canvas = canvas[..., ::-1]
        planes = np.ascontiguousarray(canvas.transpose(2, 0, 1)[None])
        if self.dtype is not np.uint8:
            scaled = (planes.astype(np.float32) / self.scale - self.mean[:, None, None]) / self.std[:, None, None]
            planes = scaled.astype(self.dtype or np.float32)
        return planes, np.array([across / image.shape[1], down / image.shape[0]]), np.array([left, top], float)


def _session(file: str | Path) -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise DistilPoseError("An ONNX detector needs onnxruntime: pip install distilpose[runtime].") from error
    if not Path(file).is_file():
        raise DistilPoseError(f"detector.file={file} does not exist: give the ONNX file of a detector.")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    there = set(onnxruntime.get_available_providers())
    providers = [name for name in ("CUDAExecutionProvider", "CPUExecutionProvider") if name in there]
    try:
        return onnxruntime.InferenceSession(str(file), options, providers=providers)
    except Exception as error:  # onnxruntime's own exceptions have no common ancestor
        reason = str(error).splitlines()[0][:200]
        raise DistilPoseError(
            f"{file} is no ONNX file that onnxruntime can load ({reason}): export it again."
        ) from error


def inside(corners: NDArray, scores: NDArray, size: Sequence[int]) -> Boxes:
    """Corners (N, 4) as boxes x, y, width, height, cut to the image of (H, W); those outside it are dropped."""
    limit = np.array([size[1], size[0], size[1], size[0]], dtype=np.float64)
    cut = np.clip(np.nan_to_num(corners), 0, limit)
    boxes = np.concatenate([cut[:, :2], cut[:, 2:] - cut[:, :2]], axis=1)
    good = (boxes[:, 2:] > 1).all(1) & np.isfinite(corners).all(1) & np.isfinite(scores)
    return Boxes(boxes[good], scores[good].astype(np.float64))
