"""Where the persons of an image are, as any detector in an ONNX file says."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from distilpose.errors import DistilPoseError, check_flag, check_number, check_size
from distilpose.inference.detector_outputs import LAYOUTS, read_outputs
from distilpose.inference.detectors import inside
from distilpose.inference.photographs import Image
from distilpose.inference.sources import Boxes


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
        if overlap is not None:
            check_number("detector.overlap", overlap, least=0, most=1)
        check_number("detector.person", person, least=0, whole=True)
        for name, values, above in (("mean", mean, None), ("std", std, 0)):
            if not isinstance(values, Sequence) or len(values) != 3:
                raise DistilPoseError(f"detector.{name}={values} must be three numbers, of red, green and blue.")
            for value in values:
                check_number(f"a value of detector.{name}", value, above=above)
        for name, flag in (("letterbox", letterbox), ("bgr", bgr), ("relative", relative)):
            check_flag(f"detector.{name}", flag)
        asked = check_size("detector.input_size", input_size)
        self.file, self.layout, self.letterbox, self.bgr = file, layout, letterbox, bgr
        self.scale, self.mean, self.std = scale, np.array(mean, np.float32), np.array(std, np.float32)
        self.person, self.box_format, self.relative = person, box_format, relative
        self.threshold, self.overlap, self.every = threshold, overlap, every
        self.session = _session(file)
        given, *more = self.session.get_inputs()
        self.input_name, self.dtype = (
            given.name,
            {"tensor(float16)": np.float16, "tensor(uint8)": np.uint8}.get(given.type),
        )
        shape = list(given.shape)
        free = [side if isinstance(side, int) and side > 0 else None for side in shape]
        if more or len(free) != 4 or free[0] not in (1, None) or free[1] not in (3, None):
            raise DistilPoseError(
                f"{file} takes {1 + len(more)} input(s), the first of shape {shape}: expected one image, (1, 3, height, width)."
            )
        self.input_size = (free[2] or asked[0], free[3] or asked[1])
        self(np.zeros((*self.input_size, 3), np.uint8))  # what cannot run is told now, before any work

    def __call__(self, image: Image) -> Boxes:
        """The persons whose score reaches the threshold, best first."""
        planes, factors, offset = self._fit(image)
        try:
            outputs = self.session.run(None, {self.input_name: planes})
        except Exception as error:  # onnxruntime's own exceptions have no common ancestor
            reason = str(error).splitlines()[0][:200]
            raise DistilPoseError(
                f"{self.file} cannot run on an image of {planes.shape[2]} x {planes.shape[3]} pixels ({reason}): give another "
                "detector.input_size (height, width), or export it again."
            ) from error
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
