"""Several teachers at once, trusted joint by joint."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from hydra.utils import instantiate
from numpy.typing import NDArray
from torch import Tensor

from distilpose.data import CocoDataModule
from distilpose.losses import TokenShape
from distilpose.losses.distributions import FLOOR
from distilpose.models import PoseModel
from distilpose.outputs import PoseBatch, TeacherOutput
from distilpose.skeleton import Skeleton
from distilpose.teachers.base import Source, SourceOutput, Teacher
from distilpose.teachers.parts import check_parts, of_part
from distilpose.teachers.sampling import between, highest_cells, in_cells_of, in_crop

Trust = Literal["maximum", "product"]


def merge(
    maps: Sequence[Tensor], trusts: Sequence[Tensor], known: Sequence[Tensor], rule: Trust
) -> tuple[Tensor, Tensor]:
    """Maps and trusts of several teachers as one: the mean of the maps, weighted by the trusts.

    Args:
        maps: (N, K, h, w) of each teacher, all in the same cells.
        trusts: (N, K) of each teacher.
        known: (K,) of each teacher, 1 for a joint that it knows, else 0.
        rule: maximum: the trust is that of the most trusted teacher; product: of all that know the joint, so that one
            teacher's doubt is enough.

    Returns:
        The maps (N, K, h, w), and the trust (N, K).
    """
    weights = torch.stack([trust * knows for trust, knows in zip(trusts, known, strict=True)])
    total = weights.sum(0)
    shares = (weights / total.clamp(min=1e-12))[..., None, None]
    merged = torch.stack([share * one for share, one in zip(shares, maps, strict=True)]).sum(0)
    if rule == "maximum":
        return merged, weights.amax(0)
    each = torch.stack([torch.where(knows > 0, trust, 1.0) for trust, knows in zip(trusts, known, strict=True)])
    return merged, each.prod(0) * (torch.stack(list(known)).sum(0) > 0)


def union_of(skeletons: Sequence[Skeleton]) -> Skeleton:
    """All joints of several skeletons: those of the first, then those that the next ones add."""
    union = skeletons[0]
    for other in skeletons[1:]:
        new = [name for name, joint in zip(other.names, other.matching(union), strict=True) if joint is None]
        union = Skeleton.from_names([*union.names, *new]) if new else union
    return union


class SeveralTeachers(Teacher):
    """Several teachers of any kind. Tokens are those of the first teacher that has any.

    Args:
        teachers: by name.
        rule: how trusts are combined, see `merge`.
    """

    def __init__(self, teachers: Mapping[str, Teacher], rule: Trust = "maximum"):
        self.teachers, self.rule = dict(teachers), rule
        parts = list(self.teachers.values())
        self.name = " and ".join(part.name for part in parts)
        self.floor = max(part.floor for part in parts)
        self.model = next((part.model for part in parts if part.model is not None), None)
        self.reads_images = all(part.reads_images for part in parts)

    @property
    def token_shape(self) -> TokenShape | None:
        """Shape of the tokens of the first teacher that has any."""
        return next((part.token_shape for part in self.teachers.values() if part.token_shape is not None), None)

    @property
    def has_keypoint_tokens(self) -> bool:
        """Whether the first teacher that has tokens has those of joints."""
        return next((part.has_keypoint_tokens for part in self.parts if part.token_shape is not None), False)

    @property
    def parts(self) -> list[Teacher]:
        """The teachers; those of parts that are several themselves are included."""
        return [one for part in self.teachers.values() for one in part.parts]

    @property
    def about(self) -> dict[str, Any] | None:
        """What the networks of other makers are, by the names of the parts; None without any."""
        return {name: part.about for name, part in self.teachers.items() if part.about is not None} or None

    def gmacs(self) -> float:
        """The sum of the parts' GMACs."""
        return sum(part.gmacs() for part in self.parts)

    def set_student(self, student: PoseModel) -> None:
        """Set the student of each teacher; see `Teacher`."""
        for name, part in self.teachers.items():
            with of_part(name):
                part.set_student(student)
        self.skeleton = union_of([part.skeleton for part in self.teachers.values()])  # labels have the student's joints
        joints = [student.skeleton.matching(part.skeleton) for part in self.teachers.values()]
        self._known = torch.tensor([[float(joint is not None) for joint in row] for row in joints])
        self.student = student

    def __call__(self, batch: PoseBatch) -> TeacherOutput:
        """The teachers' maps as one; see `Teacher`."""
        outputs = [part(batch) for part in self.teachers.values()]
        known = self._known.to(outputs[0].heatmaps)
        trusts = [batch.weights if output.trust is None else output.trust for output in outputs]
        maps = [output.heatmaps.to(outputs[0].heatmaps.dtype) for output in outputs]
        heatmaps, trust = merge(maps, trusts, list(known), self.rule)
        tokens = next((output for output in outputs if output.visual_tokens is not None), TeacherOutput(heatmaps))
        return TeacherOutput(heatmaps, tokens.visual_tokens, tokens.keypoint_tokens, trust, tokens.known)

    def prepare(self, datamodule: CocoDataModule) -> None:
        """Prepare each teacher."""
        for name, part in self.teachers.items():
            with of_part(name):
                part.prepare(datamodule)

    def check(self, datamodule: CocoDataModule) -> str | None:
        """Check each teacher by itself."""
        messages = []
        for name, part in self.teachers.items():
            with of_part(name):
                messages.append(part.check(datamodule))
        return "; ".join(filter(None, messages)) or None

    def move(self, fn: Callable[[Tensor], Tensor]) -> None:
        """Move each teacher."""
        for part in self.teachers.values():
            part.move(fn)


class SeveralSources(Source):
    """Several sources as one, in the cells of the first, which should have the widest crop. They are decoded from these maps.

    A source's joint beyond the map of the first has no trust.

    Args:
        sources: the sources.
        rule: how trusts are combined, see `merge`.
    """

    def __init__(self, sources: Sequence[Source], rule: Trust = "maximum"):
        self.sources, self.rule = list(sources), rule
        self.name = "_".join(source.name for source in sources)
        self.skeleton = union_of([source.skeleton for source in sources])
        self.map_size = self.sources[0].map_size
        floor = max(float(source.about.get("floor", FLOOR)) for source in sources)  # as for a recording of one
        self.about = {"name": self.name, "rule": rule, "sources": [source.about for source in sources], "floor": floor}

    def __call__(self, images: Sequence[NDArray[np.uint8]], boxes: NDArray[np.float64]) -> SourceOutput:
        """The sources' maps as one; see `Source`."""
        outputs = [source(images, boxes) for source in self.sources]
        maps, trusts, known = [], [], []
        for source, output in zip(self.sources, outputs, strict=True):
            joints = self.skeleton.matching(source.skeleton)
            order = [joint or 0 for joint in joints]
            moved = in_cells_of(outputs[0], self.map_size, output)
            trust = torch.from_numpy(output.trust.astype(np.float32)) * self._on_the_map(outputs[0], output)
            maps.append(torch.from_numpy(moved[:, order]))
            trusts.append(trust[:, order])
            known.append(torch.tensor([float(joint is not None) for joint in joints]))
        heatmaps, merged = merge(maps, trusts, known, self.rule)
        return SourceOutput(heatmaps.numpy(), outputs[0].warps, merged.numpy())

    def _on_the_map(self, first: SourceOutput, output: SourceOutput) -> Tensor:
        """(N, K) whether the peaks of an output lie on the map of the first; others would be cut off."""
        matrices = torch.from_numpy(between(output.warps, first.warps))
        cells = highest_cells(torch.from_numpy(np.ascontiguousarray(output.heatmaps))).to(matrices)
        places = cells @ matrices[:, :, :2].mT + matrices[:, None, :, 2]
        return in_crop(places.round(), self.map_size)


def load_several(data: CocoDataModule, rule: Trust = "maximum", **teachers: Any) -> SeveralTeachers:
    """Several teachers at once.

    Args:
        data: the training's data, which teachers that record need.
        rule: trust of a joint. maximum: of the most trusted teacher; product: of all that know the joint.
        **teachers: teachers by any name, or the settings that make them.

    Raises:
        DistilPoseError: one is no teacher or cannot be made, or there are fewer than two.
    """
    made = {}
    for name, part in check_parts(teachers).items():
        with of_part(name):
            one = instantiate(part) if isinstance(part, Mapping) else part
            made[name] = one(data=data) if isinstance(one, partial) else one
    return SeveralTeachers(made, rule)
