"""A detector of persons in an ONNX file."""

from __future__ import annotations

import ast
import logging
from pathlib import Path
from typing import Annotated, Any

import cv2
import numpy as np
import torch
from annotated_types import Ge, Gt, Le
from numpy.typing import NDArray

from distilpose.errors import DistilPoseError, first_line
from distilpose.files import foreign_content
from distilpose.inference.boxes import Boxes
from distilpose.inference.detector_outputs import BoxFormat, Detections, Layout, choose_layout, read_outputs
from distilpose.inference.detectors import clip_to_image
from distilpose.inference.images import Image

log = logging.getLogger(__name__)

Side = Annotated[int, Ge(1)]


class OnnxDetector:
    """A detector in an ONNX file, run by onnxruntime. The settings say what its input and outputs mean.

    Args:
        file: ONNX file with one image input, (1, 3, H, W).
        layout: layout of the outputs, see `detector_outputs`; auto chooses it by their names and shapes.
        input_size: height and width of the input, if the file does not fix them.
        letterbox: resize the image with its proportions kept and grey (114) around it; false stretches it.
        scale: pixels, 0 to 255, are divided by this.
        mean: subtracted after that division, in the order of the file's channels.
        std: divided by after that, in the order of the file's channels.
        bgr: whether the file expects channels in BGR order.
        person: index of the class person; null is that in the names that the file states, else 0. It is 1 with torchvision's
            numbering.
        box_format: xyxy (corners) or cxcywh (centre and size); null is the layout's default.
        relative: whether boxes are fractions of the input's width and height instead of pixels.
        threshold: lowest score of a person.
        overlap: of two boxes with a larger intersection over union only the better is kept; null keeps all.
        every: run on every N-th frame of a video; other frames use boxes around the last poses.

    Raises:
        DistilPoseError: the file is not such a detector, or onnxruntime is not installed.
    """

    def __init__(
        self,
        file: str | Path,
        layout: Layout = "auto",
        input_size: tuple[Side, Side] = (640, 640),
        letterbox: bool = True,
        scale: Annotated[float, Gt(0)] = 255.0,
        mean: tuple[float, float, float] = (0.0, 0.0, 0.0),
        std: tuple[Annotated[float, Gt(0)], Annotated[float, Gt(0)], Annotated[float, Gt(0)]] = (1.0, 1.0, 1.0),
        bgr: bool = False,
        person: Annotated[int, Ge(0)] | None = None,
        box_format: BoxFormat | None = None,
        relative: bool = False,
        threshold: Annotated[float, Ge(0), Le(1)] = 0.4,
        overlap: Annotated[float, Ge(0), Le(1)] | None = 0.6,
        every: Annotated[int, Ge(1)] = 1,
    ) -> None:
        self.file, self.letterbox, self.bgr = file, letterbox, bgr
        self.scale, self.mean, self.std = scale, np.array(mean, np.float32), np.array(std, np.float32)
        self.box_format, self.relative = box_format, relative
        self.threshold, self.overlap, self.every = threshold, overlap, every
        self.session = _open(file)
        self.classes = _class_names(self.session)
        self.person = self._person() if person is None else person
        image, *others = self.session.get_inputs()
        self.input_name = image.name
        self.output_names = [output.name for output in self.session.get_outputs()]
        self.dtype = {"tensor(float16)": np.float16, "tensor(uint8)": np.uint8}.get(image.type)
        sides = [side if isinstance(side, int) and side > 0 else None for side in image.shape]
        is_last = len(sides) == 4 and sides[3] == 3 != sides[1]  # channels, as TensorFlow and Keras have them
        if others or len(sides) != 4 or sides[0] not in (1, None) or sides[1] not in (3, None) or is_last:
            raise DistilPoseError(
                f"{file} takes {1 + len(others)} input(s), the first of shape {list(image.shape)}: expected one image, "
                "(1, 3, height, width)."
            )
        self.input_size = (sides[2] or input_size[0], sides[3] or input_size[1])
        blank = np.zeros((*self.input_size, 3), np.uint8)
        outputs = self._run(self._fit(blank)[0])
        self.layout = choose_layout(outputs, str(file), self._num_classes()) if layout == "auto" else layout
        if self.layout == "dets_labels" and self.scale != 1:
            log.warning(
                f"{file} has the outputs of mmdeploy and rtmlib, whose detectors expect BGR channels and pixels from 0 to 255, "
                f"but detector.scale={self.scale:g}: detector=rtmlib_yolox or detector=rtmlib_rtmdet sets all of that."
            )
        self._check_units(outputs)
        self(blank)  # a file that cannot run raises its error now, not during the prediction

    def __call__(self, image: Image) -> Boxes:
        """The persons whose score reaches the threshold, best first."""
        planes, factors, offset = self._fit(image)
        detections = self._read(self._run(planes))
        corners = detections.corners * (np.tile(self.input_size[::-1], 2) if self.relative else 1.0)
        corners = (corners - np.tile(offset, 2)) / np.tile(factors, 2)
        chosen = detections.scores >= self.threshold
        corners, scores = corners[chosen], detections.scores[chosen]
        if self.overlap is not None and len(scores):
            from torchvision.ops import nms

            kept = nms(torch.from_numpy(corners), torch.from_numpy(scores), self.overlap).numpy()
            corners, scores = corners[kept], scores[kept]
        order = np.argsort(-scores, kind="stable")
        return clip_to_image(corners[order], scores[order], image.shape[:2])

    def _read(self, outputs: dict[str, NDArray]) -> Detections:
        return read_outputs(outputs, self.layout, self.person, self.box_format, str(self.file), self._num_classes())

    def _check_units(self, outputs: dict[str, NDArray]) -> None:
        """Raise if the boxes of all cells are in other units than the settings say. They cover the input, on any image."""
        if not self.layout.startswith("yolo"):
            return
        reach = self._read(outputs).reach
        if 0 < reach < 0.1 * max(self.input_size) and not self.relative:
            raise DistilPoseError(
                f"{self.file} gives boxes whose centres are at most {reach:.3g}, but its input has {self.input_size[1]} x "
                f"{self.input_size[0]} pixels: set detector.relative=true if they are shares of it, else export the detector "
                "with its boxes decoded (YOLOX: --decode_in_inference)."
            )
        if self.relative and reach > 2:
            raise DistilPoseError(
                f"detector.relative=true, but {self.file} gives boxes with centres up to {reach:.0f}: leave it out, as these "
                "are pixels."
            )

    def _run(self, planes: NDArray) -> dict[str, NDArray]:
        """The outputs by name."""
        try:
            outputs = self.session.run(None, {self.input_name: planes})
        except Exception as error:  # onnxruntime's own exceptions have no common ancestor
            raise DistilPoseError(
                f"{self.file} cannot run on an image of {planes.shape[2]} x {planes.shape[3]} pixels "
                f"({first_line(error)[:200]}): give another detector.input_size=[height,width], or export the file again."
            ) from error
        return dict(zip(self.output_names, outputs, strict=True))

    def _person(self) -> int:
        matches = [
            index for index, name in self.classes.items() if name.lower() in ("person", "people", "human", "pedestrian")
        ]
        if not self.classes:
            return 0
        if len(matches) != 1:
            raise DistilPoseError(
                f"{self.file} states the classes {str(self.classes)[:200]}, of which {len(matches)} are persons by their name: "
                "give detector.person=INDEX."
            )
        return matches[0]

    def _num_classes(self) -> int | None:
        return len(self.classes) or None

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


def _class_names(session: Any) -> dict[int, str]:
    """Names of the classes by their index, from the metadata that ultralytics writes; empty if there are none."""
    try:
        names = ast.literal_eval(session.get_modelmeta().custom_metadata_map["names"])
        return {
            int(index): str(name) for index, name in (names.items() if isinstance(names, dict) else enumerate(names))
        }
    except (KeyError, ValueError, SyntaxError, TypeError):
        return {}


def _open(file: str | Path) -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise DistilPoseError(
            f"detector=onnx needs onnxruntime, which cannot be imported ({error}): pip install 'distilpose[runtime]'."
        ) from error
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    available = set(onnxruntime.get_available_providers())
    providers = [name for name in ("CUDAExecutionProvider", "CPUExecutionProvider") if name in available]
    try:
        return onnxruntime.InferenceSession(str(file), options, providers=providers)
    except Exception as error:  # onnxruntime's own exceptions have no common ancestor
        if foreign := foreign_content(file):
            raise DistilPoseError(f"detector.file={file} cannot be read: {foreign}.") from error
        raise DistilPoseError(
            f"detector.file={file} cannot be loaded by onnxruntime ({first_line(error)[:200]}): give an ONNX file of a "
            "detector."
        ) from error
