"""The interface of teachers: what a training calls (`Teacher`), and what `record` calls (`Source`).

How to add a kind of teacher:

0. A network that maps its crops to heat maps is a subclass of `Network` (network.py), which is live and recorded at once;
   `module.py` is an example. Otherwise:
1. Write one file here with a subclass of `Teacher` (heat maps for the crops of a training), of `Source` (heat maps of whole
   photographs, to be recorded), or of both. Its constructor declares the settings, with ranges as annotations.
2. Write a loader, such as `load_teacher`, that makes it from the settings of a file in `conf/teacher/`, which names the
   loader as its `_target_`. Export it from `distilpose.modules`.
3. For a `Source`, add it to `_SOURCES` in `sources.py`.
4. Add it to the kinds in `tests/teachers/test_base.py`, which tests the interface of every kind.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from distilpose.data import CocoDataModule
from distilpose.data.geometry import warp_image
from distilpose.errors import DistilPoseError
from distilpose.losses import TokenShape
from distilpose.models import PoseModel, count_gmacs
from distilpose.outputs import PoseBatch, TeacherOutput
from distilpose.skeleton import Skeleton
from distilpose.teachers.cost import network_gmacs

T = TypeVar("T", bound="Teacher")


class Teacher(ABC):
    """A frozen teacher that gives heat maps in the joints and cells of its student.

    A teacher is not an `nn.Module`, so its parameters are not part of the LightningModule that holds it: the optimizer, DDP,
    checkpoints and weight averaging never see them. Therefore the LightningModule has to move the teacher itself (`move`).

    A training calls `set_student` once, `prepare` at the start of each fit, `check` before the first one, and then the teacher
    itself with every batch.

    Attributes:
        name: for messages and logs.
        skeleton: the teacher's joints, which are matched with the student's by name.
        floor: noise floor of its maps, see `DistillationLoss.floor`; 0 for maps without noise.
        model: the teacher's `PoseModel`, which gives tokens and backbone weights to the student; None if it has none.
        network: the `Network` of another maker that gives its maps; None if it has none.
        reads_images: whether the teacher computes its output from the crop, so that it works for any person. False for
            teachers that know only the training persons, or only the labels.
        tokens_advice: how to get tokens if it has none, for the message; empty if there is no way.
        student: the student set by `set_student`.
    """

    name: str
    skeleton: Skeleton
    floor: float = 0.0
    model: PoseModel | None = None
    network: Any = None
    reads_images: bool = False
    tokens_advice: str = ""
    student: PoseModel

    @property
    def token_shape(self) -> TokenShape | None:
        """Shape of its visual tokens; None if it has no tokens."""
        return None if self.model is None or self.model.encoder is None else self.model.encoder.token_shape

    @property
    def has_keypoint_tokens(self) -> bool:
        """Whether it has a token for each joint."""
        return self.model is not None and self.model.encoder is not None

    @property
    def parts(self) -> list[Teacher]:
        """The teachers that it consists of: itself, unless it is several."""
        return [self]

    @property
    def about(self) -> dict[str, Any] | None:
        """What a network of another maker is: its name, and its file's digest or its revision; None for other teachers."""
        return None if self.network is None else {"name": self.name, **self.network.about}

    def gmacs(self) -> float:
        """Billions of multiply-accumulates for one crop, roughly; 0 if no network runs. It must be on the CPU."""
        if self.network is not None:
            return network_gmacs(self.network)
        return 0.0 if self.model is None else count_gmacs(self.model)

    @abstractmethod
    def set_student(self, student: PoseModel) -> None:
        """Set the student. Batches hold its crops, and the output has its joints and its map size.

        Raises:
            DistilPoseError: they have no joint in common (see `match_joints`), or their crops differ in size.
        """

    @abstractmethod
    def __call__(self, batch: PoseBatch) -> TeacherOutput:
        """Heat maps (N, K, H/4, W/4) of a batch of the student's crops, with a peak near 1 and without gradients.

        The student's joint at keypoint (x, y) has its peak at cell (x W/4, y H/4). `trust` weights each joint's map. It is
        None if a map counts wherever its joint has a label.
        """

    def prepare(self, datamodule: CocoDataModule) -> None:  # noqa: B027 - optional
        """Prepare for the data of a training; called at the start of every fit, also of a resumed one."""

    def check(self, datamodule: CocoDataModule) -> str | None:
        """Check that the teacher is worth learning from; called before a new training, in every process.

        Returns:
            One line for the log, or None.

        Raises:
            DistilPoseError: the teacher is too inaccurate to learn from.
        """
        return None

    def move(self, fn: Callable[[Tensor], Tensor]) -> None:  # noqa: B027 - optional
        """Apply a function to all tensors of the teacher, such as a move to a device (as `nn.Module._apply` does)."""

    def __deepcopy__(self: T, memo: dict[int, Any]) -> T:
        """Return the teacher itself: weight averaging copies the module that holds it, and both copies share it."""
        return self


class SourceOutput(NamedTuple):
    """Output of a source for N persons.

    Attributes:
        heatmaps: (N, K, h, w) float32 with a peak near 1.
        warps: (N, 2, 3) affine matrices from image pixels to cells of the map.
        trust: (N, K) in [0, 1], how likely the map's peak lies on the joint.
        cells: (N, K, 2) x and y of the joints in cells by the network's own decoding; None if the maps say all.
    """

    heatmaps: NDArray[np.float32]
    warps: NDArray[np.float64]
    trust: NDArray[np.float32]
    cells: NDArray[np.float32] | None = None


class Source(ABC):
    """A pose network that `record` runs on photographs, each person in the view that suits the network.

    Attributes:
        name: for files and messages.
        skeleton: its K joints.
        map_size: rows and columns of its maps.
        about: everything that its output depends on, in plain containers. Only a source with an equal `about` continues a
            recording.
        turns: number of rotations in which it looks at each person by itself.
    """

    name: str
    skeleton: Skeleton
    map_size: tuple[int, int]
    about: dict[str, Any]
    turns: int = 1

    @abstractmethod
    def __call__(self, images: Sequence[NDArray[np.uint8]], boxes: NDArray[np.float64]) -> SourceOutput:
        """Heat maps of one person in each of N images.

        Args:
            images: N arrays (H, W, 3) in BGR order.
            boxes: (N, 4) x, y, width, height of the persons in image pixels.
        """


def crops_of(
    images: Sequence[NDArray[np.uint8]],
    warps: Sequence[NDArray[np.float64]] | NDArray[np.float64],
    size: tuple[int, int],
    mean: Sequence[float],
    std: Sequence[float],
) -> Tensor:
    """Crops (N, 3, *size) of images (H, W, 3) in BGR order, RGB and normalised.

    Args:
        images: N images.
        warps: N matrices (2, 3) from image pixels to crop pixels.
        size: (H, W) of the crops.
        mean: mean of RGB in [0, 1].
        std: standard deviation of RGB.
    """
    crops = [warp_image(image, warp, size)[..., ::-1] for image, warp in zip(images, warps, strict=True)]
    pixels = (np.stack(crops).astype(np.float32) / 255 - np.array(mean)) / np.array(std)
    return torch.from_numpy(pixels.astype(np.float32)).permute(0, 3, 1, 2).contiguous()


def match_joints(teacher: Skeleton, student: Skeleton) -> list[int | None]:
    """Match joints by name: for each of the student's joints the index of the teacher's, or None if it has none.

    Args:
        teacher: joints of the teacher.
        student: joints of the student, or of its data.

    Raises:
        DistilPoseError: they have no joint in common.
    """
    joints = student.matching(teacher)
    if all(joint is None for joint in joints):
        raise DistilPoseError(
            f"The teacher's joints {list(teacher.names)} and the data's {list(student.names)} have no name in common: give "
            "a teacher of this kind of body."
        )
    return joints


def reorder_joints(joints: Sequence[int | None], output: TeacherOutput, batch: PoseBatch) -> TeacherOutput:
    """A teacher's output with the student's K joints in the student's order.

    Joints that the teacher does not have get an empty map and trust 0. The others keep their trust; without one, labelled
    joints get trust 1.

    Args:
        joints: for each of the student's joints the teacher's, or None (see `match_joints`).
        output: output of the teacher, in the teacher's joints.
        batch: the N persons, in the student's joints.
    """
    order = torch.tensor([joint or 0 for joint in joints], device=output.heatmaps.device)
    known = output.heatmaps.new_tensor([joint is not None for joint in joints])
    tokens = output.keypoint_tokens
    trust = batch.weights if output.trust is None else output.trust[:, order]
    return TeacherOutput(
        output.heatmaps[:, order] * known[:, None, None],
        output.visual_tokens,
        None if tokens is None else tokens[:, order],
        trust * known,
        known,
    )
