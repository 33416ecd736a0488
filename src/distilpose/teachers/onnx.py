"""Pose networks in ONNX files as teachers, on onnxruntime."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated

import torch
from annotated_types import Ge, Gt, Le, Unit
from torch import Tensor

from distilpose.teachers.movenet import read_movenet
from distilpose.teachers.network import Network, NetworkOutput, NetworkTeacher
from distilpose.teachers.onnx_file import Layout, OnnxFile
from distilpose.teachers.onnx_outputs import SimccValues, choose_outputs
from distilpose.teachers.onnx_settings import Settings
from distilpose.teachers.readout import Rule, read_heatmaps, read_simcc, scale_probabilities

Side = Annotated[int, Ge(1)]
Deviation = Annotated[float, Gt(0)]


class OnnxNetwork(Network):
    """A network that gives heat maps, a SimCC pair, or MoveNet's four maps; settings as in `load_onnx`.

    What no setting says is read from the file's metadata, its names and its shapes, or assumed; `describe` tells which.

    Raises:
        DistilPoseError: the file cannot be used, or its outputs fit none of these.
    """

    def __init__(
        self,
        file: str | Path,
        joints: Sequence[str] | None = None,
        rule: Rule | None = None,
        offset: float | None = None,
        padding: float | None = None,
        input_size: tuple[int, int] | None = None,
        layout: Layout | None = None,
        scale: float | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        bgr: bool = False,
        outputs: Sequence[str] | None = None,
        simcc: SimccValues | None = None,
    ):
        self.name, self._bgr = Path(file).stem, bgr
        self._file = OnnxFile(file, input_size, layout)
        settings = Settings(self._file)
        names = settings.output_names(outputs)
        probe = dict(zip(names, self._probe(names), strict=True))
        shapes = {name: tuple(output.shape) for name, output in probe.items()}
        self._outputs = choose_outputs(shapes, self._file.input_size, self._file.where)
        maps = self._outputs.arrange([probe[name] for name in self._outputs.names])
        self.mean, self.std = settings.normalisation(self._outputs.kind, scale, mean, std, bgr)
        self.convention, self._ratio = settings.convention(self._outputs, maps, rule, offset, padding)
        self._simcc = settings.simcc(self._outputs.kind, maps, simcc)
        self.skeleton = settings.skeleton(maps[0].shape[1], joints)
        self._softmax = self._outputs.kind == "heat maps" and settings.are_softmax(maps)
        self.floor = 0.0 if self._softmax else self.floor
        self._notes = settings.notes
        self.about = {
            "files": self._file.digests, "layout": self._file.layout, "mean": list(self.mean), "std": list(self.std),
            "bgr": bgr, "kind": self._outputs.kind, "outputs": list(self._outputs.names), "simcc": self._simcc,
            "joints": list(self.skeleton.names),
        }  # fmt: skip

    @torch.no_grad()
    def __call__(self, crops: Tensor) -> NetworkOutput:
        """See `Network`."""
        outputs = self._outputs.arrange(self._file(crops.flip(1) if self._bgr else crops, self._outputs.names))
        if self._outputs.kind == "MoveNet":
            return read_movenet(*outputs)
        if self._ratio is None:
            return read_heatmaps(outputs[0], self._softmax)
        if self._simcc == "logits":
            outputs = [axis.softmax(-1) for axis in outputs]
        if self._simcc != "values":
            outputs = [scale_probabilities(axis, self._ratio) for axis in outputs]
        return read_simcc(outputs[0], outputs[1], self._ratio, self.convention.map_size)

    def move(self, fn: Callable[[Tensor], Tensor]) -> None:
        """Run on the device to which tensors are moved, if onnxruntime can."""
        self._file.device = fn(torch.zeros(1)).device

    def describe(self) -> str:
        """See `Network`."""
        return f"{super().describe()}. {'; '.join(self._notes)}."

    def _probe(self, names: Sequence[str]) -> list[Tensor]:
        """Outputs for crops of noise."""
        shape = (self._file.batch or 1, 3, *self._file.input_size)
        return self._file(torch.rand(shape, generator=torch.Generator().manual_seed(0)), names)


def load_onnx(
    file: str | Path,
    joints: Sequence[str] | None = None,
    rule: Rule | None = None,
    offset: Annotated[float, Unit("pixels")] | None = None,
    padding: Annotated[float, Gt(0)] | None = None,
    input_size: tuple[Side, Side] | None = None,
    layout: Layout | None = None,
    scale: Annotated[float, Gt(0)] | None = None,
    mean: tuple[float, float, float] | None = None,
    std: tuple[Deviation, Deviation, Deviation] | None = None,
    bgr: bool = False,
    outputs: Sequence[str] | None = None,
    simcc: SimccValues | None = None,
    pad: bool = False,
    sigma: Annotated[float, Ge(0), Unit("cells")] = 1.0,
    least_trust: Annotated[float, Ge(0), Le(1)] = 0.0,
    check: bool = True,
    check_persons: Annotated[int, Ge(1), Unit("persons")] = 300,
) -> NetworkTeacher:
    """A pose network in an ONNX file; null stands for what the file says or its shapes allow to infer, which is logged.

    Args:
        file: ONNX file with one image input, and heat maps, a SimCC pair or MoveNet's four maps as outputs.
        joints: names of its joints in its order; null if there are 17 (COCO), 26 (Halpe) or 133 (COCO-WholeBody).
        rule: cells of its heat maps. ratio: cell = pixel / ratio of the sizes; udp: the last cell is the last pixel (ViTPose).
        offset: pixel of the crop at the centre of the first cell; null is 1.5 for MoveNet and 0 for others.
        padding: factor on a person's box; null is 1 for MoveNet and 1.25 for others.
        input_size: height and width of its crops, if the file does not fix them.
        layout: nchw or nhwc, if its input does not show which axis has three channels.
        scale: pixels, 0 to 255, are divided by this; null is 255 if mean or std are given.
        mean: subtracted after that division, in the order of the file's channels.
        std: divided by after that, in the order of the file's channels.
        bgr: whether the file expects channels in BGR order.
        outputs: names of the outputs to read: heat maps, or x and y of SimCC.
        simcc: what SimCC outputs are. values: their height is a confidence (RTMPose); probabilities; or logits before softmax.
        pad: show crops of another aspect with black bars.
        sigma: least width of a peak in cells of the student's map.
        least_trust: joints with less trust are learnt from their labels alone.
        check: reject a teacher whose maps are out of range or whose accuracy is near chance.
        check_persons: number of validation persons used for the check.

    Raises:
        DistilPoseError: the file cannot be used, or its outputs fit none of these; or onnxruntime is not installed.
    """
    network = OnnxNetwork(
        file, joints, rule, offset, padding, None if input_size is None else (input_size[0], input_size[1]), layout, scale,
        mean, std, bgr, outputs, simcc,
    )  # fmt: skip
    return NetworkTeacher(network, pad, sigma, least_trust, check, check_persons)
