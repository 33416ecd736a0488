"""Pose networks in ONNX files as teachers, on onnxruntime."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import torch
from annotated_types import Ge, Gt, Le, Unit
from torch import Tensor

from distilpose.errors import DistilPoseError
from distilpose.export_metadata import METADATA_KEY, parse_metadata
from distilpose.outputs import IMAGENET_MEAN, IMAGENET_STD
from distilpose.skeleton import Skeleton
from distilpose.teachers.convention import Convention
from distilpose.teachers.heatmaps import peak_confidence
from distilpose.teachers.movenet import OFFSET, read_movenet
from distilpose.teachers.network import Network, NetworkOutput, NetworkTeacher
from distilpose.teachers.onnx_file import Layout, OnnxFile
from distilpose.teachers.onnx_outputs import (
    Outputs,
    SimccValues,
    are_probabilities,
    choose_outputs,
    scale_probabilities,
)
from distilpose.teachers.readout import BODIES, Rule, convention_of, read_heatmaps, read_simcc, skeleton_of

Side = Annotated[int, Ge(1)]
Deviation = Annotated[float, Gt(0)]
RAW = ((0.0, 0.0, 0.0), (1 / 255, 1 / 255, 1 / 255))  # mean and std of pixels from 0 to 255


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
        self.name, self.bgr, self._notes = Path(file).stem, bgr, list[str]()
        self._file = OnnxFile(file, input_size, layout)
        where, text = self._file.where, self._file.metadata.get(METADATA_KEY)
        self._export: dict[str, Any] | None = None if text is None else parse_metadata(text, file)
        probe = self._probe(outputs)
        size, shapes = self._file.input_size, {name: tuple(output.shape) for name, output in probe.items()}
        self._outputs = choose_outputs(shapes, size, where)
        maps = self._outputs.arrange([probe[name] for name in self._outputs.names])
        self.mean, self.std = self._normalisation(scale, mean, std)
        self.convention, self._ratio = self._convention(maps, size, rule, offset, padding, where)
        self._simcc = self._simcc_values(maps, simcc) if self._ratio is not None else None
        self.skeleton = self._skeleton(maps[0].shape[1], joints, where)
        # own softmax maps are scaled to a peak of one, so that its height is no confidence
        self._softmax = self._export is not None and bool(((maps[0].amax(dim=(-2, -1)) - 1).abs() < 1e-6).all())
        self.floor = 0.0 if self._softmax else self.floor
        self.about = {
            "files": self._file.digests, "layout": self._file.layout, "mean": list(self.mean), "std": list(self.std),
            "bgr": bgr, "kind": self._outputs.kind, "outputs": list(self._outputs.names), "simcc": self._simcc,
            "joints": list(self.skeleton.names),
        }  # fmt: skip

    @torch.no_grad()
    def __call__(self, crops: Tensor) -> NetworkOutput:
        """See `Network`."""
        outputs = self._outputs.arrange(self._file(crops.flip(1) if self.bgr else crops, self._outputs.names))
        if self._outputs.kind == "MoveNet":
            return read_movenet(*outputs)
        if self._ratio is None:
            output = read_heatmaps(outputs[0])
            return output._replace(trust=peak_confidence(output.heatmaps, True)) if self._softmax else output
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

    def _probe(self, wanted: Sequence[str] | None) -> dict[str, Tensor]:
        """Outputs for a crop of noise."""
        names, where = self._file.outputs, self._file.where
        if self._export is not None and wanted is None:
            if self._export["kind"] != "teacher":
                raise DistilPoseError(
                    f"{where} holds a student, which gives no heat maps: export a teacher (python -m distilpose.export)."
                )
            wanted = ["heatmaps"]
        if unknown := [name for name in wanted or () if name not in names]:
            raise DistilPoseError(f"{where} has no output {unknown[0]}: teacher.outputs names some of {names}.")
        names = list(wanted or names)
        noise = torch.rand((self._file.batch or 1, 3, *self._file.input_size), generator=torch.Generator().manual_seed(0))
        shown = "any number" if self._file.batch is None else self._file.batch
        self._notes.append(
            f"Input {self._file.input_shape} {self._file.dtype.__name__} ({self._file.layout}), run on {shown} crops at a time"
        )
        return dict(zip(names, self._file(noise, names), strict=True))

    def _normalisation(
        self, scale: float | None, mean: Sequence[float] | None, std: Sequence[float] | None
    ) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and std of RGB in [0, 1]."""
        if scale is not None or mean is not None or std is not None:
            factor = (255.0 if scale is None else scale) / 255
            values = [[factor * value for value in given] for given in (mean or (0, 0, 0), std or (1, 1, 1))]
            return (tuple(values[0][::-1]), tuple(values[1][::-1])) if self.bgr else (tuple(values[0]), tuple(values[1]))
        way = "(otherwise: teacher.mean, teacher.std, teacher.scale, teacher.bgr)"
        if self._export is not None:
            return RAW if self._export["normalise"] else (tuple(self._export["mean"]), tuple(self._export["std"]))
        if self._file.is_integer:
            result, note = RAW, "its input has no fractions"
        elif self._outputs.kind == "MoveNet":
            result, note = RAW, "it is MoveNet"
        else:
            result, note = (IMAGENET_MEAN, IMAGENET_STD), ""
        pixels = f"pixels from 0 to 255, as {note}" if note else "pixels normalised by ImageNet's mean and std"
        self._notes.append(f"assumed: {pixels} {way}")
        return result

    def _convention(
        self,
        maps: list[Tensor],
        size: tuple[int, int],
        rule: Rule | None,
        offset: float | None,
        padding: float | None,
        where: str,
    ) -> tuple[Convention, float | None]:
        """Crop and cells, and the split ratio of SimCC."""
        kind = self._outputs.kind
        names = " and ".join(self._outputs.names)
        order = "" if self._outputs.certain else ", x before y by their order alone (otherwise: teacher.outputs=[x,y])"
        last = " (N, rows, columns, joints)" if self._outputs.channels_last else ""
        self._notes.append(f"output {names} read as {kind}{last}{order}")
        if padding is None:
            exported = None if self._export is None else float(self._export["padding"])
            padding = exported or (1.0 if kind == "MoveNet" else 1.25)
            if exported is None:
                self._notes.append(f"assumed: the box x {padding:g} (otherwise: teacher.padding)")
        if rule is None and kind == "heat maps" and self._export is None:
            named = any(re.search("vit.?pose", text.lower()) for text in (self.name, *self._file.metadata.values()))
            rule = "udp" if named else "ratio"
            reason = "for ViTPose, which only its name says" if named else "as in HRNet; ViTPose needs udp"
            self._notes.append(f"assumed: teacher.rule={rule}, {reason}")
        convention, ratio = convention_of(maps[:1] if kind == "MoveNet" else maps, size, rule or "ratio", padding, where)
        if offset is None:
            offset = OFFSET if kind == "MoveNet" else 0.0
        return replace(convention, offset=(offset, offset)) if offset else convention, ratio

    def _simcc_values(self, outputs: list[Tensor], given: SimccValues | None) -> SimccValues:
        if given is not None:
            return given
        kind: SimccValues = "probabilities" if are_probabilities(outputs) else "values"
        way = "teacher.simcc=logits if a softmax belongs after them" if kind == "values" else "teacher.simcc"
        self._notes.append(f"split ratio {self._ratio:g}; assumed: its values are {kind} (otherwise: {way})")
        return kind

    def _skeleton(self, count: int, joints: Sequence[str] | None, where: str) -> Skeleton:
        if joints is None and self._export is not None:
            return Skeleton.from_dict(self._export["skeleton"])
        skeleton = skeleton_of(count, joints, where)
        if joints is None:
            body = {17: "COCO's", 26: "Halpe's", 133: "COCO-WholeBody's"}[len(BODIES[count])]
            self._notes.append(f"assumed: {body} joints in their order, by their number (otherwise: teacher.joints)")
        return skeleton


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
