"""A torch network of one's own as a teacher: a function that builds it is all it takes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Annotated, Any, cast

import torch
from annotated_types import Ge, Gt, Le, Unit
from hydra.utils import get_method
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from distilpose.errors import DistilPoseError, first_line
from distilpose.models.checkpoint import sha256_of_weights
from distilpose.outputs import IMAGENET_MEAN, IMAGENET_STD
from distilpose.teachers.network import Network, NetworkOutput, NetworkTeacher
from distilpose.teachers.readout import (
    Rule,
    are_probabilities,
    convention_of,
    read_heatmaps,
    read_simcc,
    scale_probabilities,
    skeleton_of,
)

Side = Annotated[int, Ge(1)]
Mean = Annotated[float, Ge(0), Le(1)]  # of pixels from 0 to 1
Deviation = Annotated[float, Gt(0), Le(1)]


class ModuleNetwork(Network):
    """A torch module that gives heat maps (N, K, h, w), or SimCC as a pair (N, K, r W) and (N, K, r H).

    Values are confidences; if those of each joint sum to one, they are read as distributions.

    Args:
        module: the network; it is put into evaluation mode.
        name: its name.
        input_size: (H, W) of its crops.
        joints: names of its joints; None if their number says which.
        rule: cells of heat maps, see `convention_of`.
        padding: factor on a person's box.
        mean: mean of RGB in [0, 1] that its input is normalised by.
        std: standard deviation of RGB for the same.

    Raises:
        DistilPoseError: its outputs have other shapes.
    """

    def __init__(
        self,
        module: Callable[[Tensor], Any],
        name: str,
        input_size: tuple[int, int],
        joints: Sequence[str] | None = None,
        rule: Rule = "ratio",
        padding: float = 1.25,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
    ):
        if isinstance(module, nn.Module):
            with suppress(NotImplementedError):  # what torch.export wrote has no other mode
                module.eval()
            for parameter in module.parameters():  # a scripted module lacks requires_grad_
                parameter.requires_grad_(False)
        self.module, self.name = module, name
        self.mean, self.std = tuple(mean), tuple(std)
        blank = torch.zeros(1, 3, *input_size)
        try:
            outputs = self._run(blank)
        except Exception as error:  # the type depends on the network
            raise DistilPoseError(
                f"Teacher {name} cannot run on float32 crops of shape {tuple(blank.shape)} on the CPU ({first_line(error)}): "
                "return it in float32 and on the CPU, and give the teacher.input_size (height, width) that it takes."
            ) from error
        if not all(isinstance(output, Tensor) for output in outputs):
            kinds = " and ".join(type(output).__name__ for output in outputs)
            raise DistilPoseError(
                f"Teacher {name} gives {kinds}: return a tensor of heat maps (N, joints, rows, columns), or two "
                "tensors for SimCC."
            )
        self.convention, self._ratio = convention_of(outputs, input_size, rule, padding, f"Teacher {name}")
        self._probabilities = are_probabilities(outputs)  # after a softmax
        self.floor = 0.0 if self._probabilities and self._ratio is None else self.floor
        self.skeleton = skeleton_of(outputs[0].shape[1], joints, f"Teacher {name}")
        weights = sha256_of_weights(_tensors(module)) if isinstance(module, nn.Module) else None
        self.about = {
            "target": name, "sha256": weights, "mean": list(self.mean), "std": list(self.std),
            "joints": list(self.skeleton.names),
        }  # fmt: skip

    def __call__(self, crops: Tensor) -> NetworkOutput:
        """See `Network`."""
        outputs = self._run(crops)
        if self._ratio is None:
            return read_heatmaps(outputs[0], self._probabilities)
        if self._probabilities:
            outputs = [scale_probabilities(axis, self._ratio) for axis in outputs]
        return read_simcc(outputs[0], outputs[1], self._ratio, self.convention.map_size)

    @torch.no_grad()
    def _run(self, crops: Tensor) -> list[Tensor]:
        try:
            output = self.module(crops)
        except RuntimeError as error:
            if isinstance(self.module, nn.Module) or crops.device.type == "cpu":
                raise
            raise DistilPoseError(
                f"Teacher {self.name} is a function that ran on the CPU and fails on crops on {crops.device} "
                f"({first_line(error)}): return the module, which is moved, or let the function move its tensors."
            ) from error
        return list(output) if isinstance(output, (tuple, list)) else [output]

    def move(self, fn: Callable[[Tensor], Tensor]) -> None:
        """Move the module; a plain function has nothing to move."""
        if isinstance(self.module, nn.Module):
            self.module._apply(fn)


def _tensors(module: nn.Module) -> dict[str, Tensor]:
    """The tensors of a state_dict by name; a quantised layer keeps its own in tuples, beside what is no tensor."""
    tensors = {}
    for name, value in module.state_dict().items():
        for place, leaf in enumerate(tree_leaves(value)):
            if isinstance(leaf, Tensor):
                tensors[f"{name}.{place}" if leaf is not value else name] = (
                    leaf.dequantize() if leaf.is_quantized else leaf
                )
    return tensors


def load_module(
    target: str,
    input_size: tuple[Side, Side] = (256, 192),
    joints: Sequence[str] | None = None,
    rule: Rule = "ratio",
    padding: Annotated[float, Gt(0)] = 1.25,
    mean: tuple[Mean, Mean, Mean] = IMAGENET_MEAN,
    std: tuple[Deviation, Deviation, Deviation] = IMAGENET_STD,
    pad: bool = False,
    sigma: Annotated[float, Ge(0), Unit("cells")] = 1.0,
    least_trust: Annotated[float, Ge(0), Le(1)] = 0.0,
    check: bool = True,
    check_persons: Annotated[int, Ge(1), Unit("persons")] = 300,
) -> NetworkTeacher:
    """A torch network of one's own.

    Args:
        target: dotted path of a function without arguments that returns the network, such as my_package.teachers.build: a
            module, or a function, from crops (N, 3, H, W) to heat maps (N, K, h, w) or a pair of SimCC distributions.
        input_size: height and width of its crops.
        joints: names of its joints in its order; null if there are 17 (COCO), 26 (Halpe) or 133 (COCO-WholeBody).
        rule: cells of its maps. ratio: cell = pixel / ratio of the sizes; udp: the last cell is the last pixel (ViTPose).
        padding: factor on a person's box.
        mean: mean of RGB in [0, 1] that its input is normalised by.
        std: standard deviation of RGB for the same.
        pad: show crops of another aspect with black bars.
        sigma: least width of a peak in cells of the student's map.
        least_trust: joints with less trust are learnt from their labels alone.
        check: reject a teacher whose maps are out of range or whose accuracy is near chance.
        check_persons: number of validation persons used for the check.

    Raises:
        DistilPoseError: there is no such function, or its outputs have other shapes.
    """
    try:
        build = cast("Callable[[], Callable[[Tensor], Any]]", get_method(target))
    except Exception as error:  # of Hydra, or of the module that is imported
        raise DistilPoseError(
            f"teacher.target={target} cannot be imported ({first_line(error.__cause__ or error)}): give the dotted path of a "
            "function without arguments that returns the network, and run where it can be imported."
        ) from error
    try:
        module = build()
    except Exception as error:  # whatever the user's function raises
        raise DistilPoseError(
            f"teacher.target={target} failed ({type(error).__name__}: {first_line(error)}): mend the function, or give another."
        ) from error
    if not callable(module):
        raise DistilPoseError(
            f"teacher.target={target} returned {type(module).__name__}: return a torch module, or a function from crops to "
            "maps."
        )
    network = ModuleNetwork(module, target, (input_size[0], input_size[1]), joints, rule, padding, mean, std)
    return NetworkTeacher(network, pad, sigma, least_trust, check, check_persons)
