"""What an ONNX file does not say of itself: each value is a setting, in the file's metadata, or assumed with a note."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor

from distilpose.errors import DistilPoseError
from distilpose.export_metadata import METADATA_KEY, parse_metadata
from distilpose.outputs import IMAGENET_MEAN, IMAGENET_STD
from distilpose.skeleton import Skeleton
from distilpose.teachers.convention import Convention
from distilpose.teachers.movenet import OFFSET
from distilpose.teachers.onnx_file import OnnxFile
from distilpose.teachers.onnx_outputs import Outputs, SimccValues
from distilpose.teachers.readout import Rule, are_probabilities, convention_of, skeleton_of

RAW = ((0.0, 0.0, 0.0), (1 / 255, 1 / 255, 1 / 255))  # mean and std of pixels from 0 to 255
OWNERS = {17: "COCO's", 26: "Halpe's", 133: "COCO-WholeBody's"}


class Settings:
    """Answers the questions that a file leaves open.

    Args:
        file: the file.

    Attributes:
        notes: what was read, inferred or assumed, with the setting that says otherwise.
        export: metadata of a teacher that was exported by this package; None for other files.

    Raises:
        DistilPoseError: it is an export of a student.
    """

    def __init__(self, file: OnnxFile):
        self.file, self.where = file, file.where
        shown = "any number of" if file.batch is None else str(file.batch)
        self.notes = [f"Input {file.input_shape} {file.dtype} ({file.layout}), run on {shown} crops at a time"]
        text = file.metadata.get(METADATA_KEY)
        self.export: dict[str, Any] | None = None if text is None else parse_metadata(text, file.file)
        if self.export is not None and self.export["kind"] != "teacher":
            raise DistilPoseError(
                f"{self.where} holds a student, which gives no heat maps: export a teacher (python -m distilpose.export)."
            )

    def output_names(self, given: Sequence[str] | None) -> list[str]:
        """Names of the outputs that may be read."""
        names = self.file.outputs
        if given is None:
            return names if self.export is None else ["heatmaps"]
        if unknown := [name for name in given if name not in names]:
            raise DistilPoseError(f"{self.where} has no output {unknown[0]}: teacher.outputs names some of {names}.")
        return list(given)

    def normalisation(
        self, kind: str, scale: float | None, mean: Sequence[float] | None, std: Sequence[float] | None, bgr: bool
    ) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and std of RGB in [0, 1]; arguments as in `load_onnx`."""
        if scale is not None or mean is not None or std is not None:
            factor, step = (255.0 if scale is None else scale) / 255, -1 if bgr else 1
            given = [[factor * value for value in values] for values in (mean or (0, 0, 0), std or (1, 1, 1))]
            self._check_range(given[0], given[1], _shown(scale=scale, mean=mean, std=std))
            return tuple(given[0][::step]), tuple(given[1][::step])
        if self.export is not None:
            return RAW if self.export["normalise"] else (tuple(self.export["mean"]), tuple(self.export["std"]))
        raw = self.file.is_integer or kind == "MoveNet"
        reason = "its input has no fractions" if self.file.is_integer else "in MoveNet"
        self.notes.append(
            f"assumed: pixels {f'from 0 to 255, as {reason}' if raw else 'normalised by ImageNet'} (otherwise: "
            "teacher.scale, teacher.mean, teacher.std, teacher.bgr)"
        )
        return RAW if raw else (IMAGENET_MEAN, IMAGENET_STD)

    def _check_range(self, means: Sequence[float], deviations: Sequence[float], settings: str) -> None:
        """Raise an error if the mean and std of pixels from 0 to 1 are those of pixels from 0 to 255, or the reverse."""
        way_out = "give teacher.scale=255 with a mean and std of pixels from 0 to 1, or teacher.scale=1 with those of 0 to 255"
        # pixels from 0 to 255 are the widest range, those from 0 to 1 around their mean the narrowest; some divide by 256
        if max(means) > 1.01 or max(deviations) > 1.01 or min(deviations) < 0.99 / 255:
            low, high = -max(means) / min(deviations), (1 - min(means)) / min(deviations)
            raise DistilPoseError(f"{self.where}: {settings} makes pixels of {low:.3g} to {high:.3g}: {way_out}.")
        if self.file.is_integer and (any(means) or any(abs(255 * value - 1) > 0.01 for value in deviations)):
            raise DistilPoseError(
                f"{self.where} takes whole numbers from 0 to 255, and {settings} makes fractions: leave it out."
            )

    def convention(
        self, outputs: Outputs, maps: Sequence[Tensor], rule: Rule | None, offset: float | None, padding: float | None
    ) -> tuple[Convention, float | None]:
        """Crop and cells, and the split ratio of SimCC; arguments as in `load_onnx`."""
        last = " (N, rows, columns, joints)" if outputs.channels_last else ""
        order = "" if outputs.certain else ", x first (otherwise: teacher.outputs=[x,y])"
        self.notes.append(f"outputs {', '.join(outputs.names)} read as {outputs.kind}{last}{order}")
        if padding is None and self.export is not None:
            padding = float(self.export["padding"])
        elif padding is None:
            padding = 1.0 if outputs.kind == "MoveNet" else 1.25
            self.notes.append(f"assumed: the box x {padding:g} (otherwise: teacher.padding)")
        if rule is None and outputs.kind == "heat maps" and self.export is None:
            said = (self.file.file.stem, *self.file.metadata.values())
            vitpose = any(re.search("vit.?pose", text.lower()) for text in said)
            rule = "udp" if vitpose else "ratio"
            reason = "as in ViTPose, which only its name says" if vitpose else "as in HRNet; ViTPose needs udp"
            self.notes.append(f"assumed: teacher.rule={rule}, {reason}")
        is_movenet = outputs.kind == "MoveNet"
        maps = maps[:1] if is_movenet else maps
        convention, ratio = convention_of(maps, self.file.input_size, rule or "ratio", padding, self.where)
        offset = OFFSET if is_movenet and offset is None else offset
        return (replace(convention, offset=(offset, offset)) if offset else convention), ratio

    def are_softmax(self, maps: Sequence[Tensor]) -> bool:
        """Whether heat maps are distributions, whose heights are no confidence; exports have them at a height of one."""
        if self.export is not None:
            return bool(((maps[0].amax(dim=(-2, -1)) - 1).abs() < 1e-6).all())
        softmax = are_probabilities(maps)
        if softmax:
            self.notes.append("maps that sum to one, read as distributions")
        return softmax

    def simcc(self, outputs: str, maps: Sequence[Tensor], given: SimccValues | None) -> SimccValues | None:
        """What SimCC outputs are; None for other kinds of outputs."""
        if outputs != "SimCC":
            if given is not None:
                raise DistilPoseError(f"{self.where} gives {outputs} and no SimCC: leave teacher.simcc={given} out.")
            return None
        if given is not None:
            return given
        kind: SimccValues = "probabilities" if are_probabilities(maps) else "values"
        self.notes.append(f"assumed: SimCC of {kind} (otherwise: teacher.simcc)")
        return kind

    def skeleton(self, count: int, joints: Sequence[str] | None) -> Skeleton:
        """The joints."""
        if joints is None and self.export is not None:
            return Skeleton.from_dict(self.export["skeleton"])
        skeleton = skeleton_of(count, joints, self.where)
        if joints is None:
            self.notes.append(
                f"assumed: {OWNERS[count]} order of joints, as there are {count} (otherwise: teacher.joints)"
            )
        return skeleton


def _shown(**settings: Any) -> str:
    """Those that are set, as on the command line."""
    return " ".join(f"teacher.{name}={value}" for name, value in settings.items() if value is not None)
