"""Networks of other makers as teachers: one small class a kind gives maps, and the rest is here."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from lightning.pytorch.utilities import rank_zero_only
from numpy.typing import NDArray
from torch import Tensor

from distilpose.data import CocoDataModule
from distilpose.errors import DistilPoseError
from distilpose.losses import TokenShape
from distilpose.losses.distributions import FLOOR
from distilpose.models import PoseModel
from distilpose.outputs import IMAGENET_MEAN, IMAGENET_STD, PoseBatch, TeacherOutput
from distilpose.skeleton import Skeleton
from distilpose.teachers.base import Source, SourceOutput, Teacher, crops_of, match_joints, reorder_joints
from distilpose.teachers.check import describe_check
from distilpose.teachers.convention import Convention
from distilpose.teachers.sampling import highest_cells, in_crop, peak_width, sample_maps

log = logging.getLogger(__name__)


class NetworkOutput(NamedTuple):
    """Output of a network for N of its crops.

    Attributes:
        heatmaps: (N, K, h, w) float32 in the cells of its convention, without negative values. The height of the peak is the
            network's confidence, near 1 for a joint that it sees.
        trust: (N, K) in [0, 1], how likely the peak lies on the joint.
        visual_tokens: (N, P, D) tokens of its patches; None without tokens.
        cells: (N, K, 2) x and y of the joints in cells by the network's own decoding; None if the maps say all.
    """

    heatmaps: Tensor
    trust: Tensor
    visual_tokens: Tensor | None = None
    cells: Tensor | None = None


class Network(ABC):
    """A frozen network of another maker in its own crop.

    Attributes:
        name: for messages, files and logs.
        skeleton: its K joints.
        convention: its crop and its cells.
        mean: mean of RGB in [0, 1] that its input is normalised by.
        std: standard deviation of RGB for the same.
        about: everything that its output depends on, in plain containers: its file's digest or its revision.
        floor: noise floor of its maps, see `DistillationLoss.floor`.
        token_shape: shape of its visual tokens; None without tokens.
    """

    name: str
    skeleton: Skeleton
    convention: Convention
    mean: Sequence[float] = IMAGENET_MEAN
    std: Sequence[float] = IMAGENET_STD
    about: dict[str, Any]
    floor: float = FLOOR
    token_shape: TokenShape | None = None

    @abstractmethod
    def __call__(self, crops: Tensor) -> NetworkOutput:
        """Its output for crops (N, 3, *input_size), RGB, normalised by its mean and std; without gradients."""

    def move(self, fn: Callable[[Tensor], Tensor]) -> None:  # noqa: B027 - optional
        """Apply a function to its tensors, such as a move to a device."""

    def describe(self) -> str:
        """Everything that was read, inferred or assumed, in one line for the log."""
        joints = f"{self.skeleton.num_keypoints} joints ({', '.join(self.skeleton.names[:3])}, …)"
        return f"Teacher {self.name}: {joints}, {self.convention.describe()}"


class NetworkTeacher(Teacher):
    """A network that sees the crops of a training, resized to its input. Trust is the network's own.

    Args:
        network: the network.
        pad: show crops of another aspect with black bars; otherwise they are an error.
        sigma: least width of a peak in cells of the student's map; narrower peaks are widened to it.
        least_trust: the trust of joints below it becomes 0.
        check: reject a teacher whose maps are out of range or whose accuracy is near chance (see `check_teacher`).
        check_persons: number of validation persons used for the check.
    """

    reads_images = True

    def __init__(
        self,
        network: Network,
        pad: bool = False,
        sigma: float = 1.0,
        least_trust: float = 0.0,
        check: bool = True,
        check_persons: int = 300,
    ):
        self.network = network
        self.name, self.skeleton, self.floor = network.name, network.skeleton, network.floor
        self.pad, self.sigma, self.least_trust = pad, sigma, least_trust
        self._check, self.check_persons = check, check_persons
        self._has_bars = False

    @property
    def token_shape(self) -> TokenShape | None:
        """Shape of the network's tokens; bars around the student's crop leave none that fit it."""
        return None if self._has_bars else self.network.token_shape

    def set_student(self, student: PoseModel) -> None:
        """Set the student; see `Teacher`."""
        convention = self.network.convention
        size, (height, width) = (student.input_size[0], student.input_size[1]), convention.input_size
        _, shift = convention.of_crop(size)
        self._has_bars = max(shift) >= 1
        if self._has_bars and self.network.token_shape is not None:
            self.tokens_advice = (
                f"pass model.input_size=[{height},{width}] or another size of its aspect, as tokens of a crop with black bars "
                "do not fit the student's"
            )
        if self._has_bars and not self.pad:
            raise DistilPoseError(
                f"The teacher {self.name} reads crops of {height} x {width} and the student of {size[0]} x {size[1]} (H x W), "
                "of another aspect: pass teacher.pad=true to show the student's crop with black bars, or, better, record the "
                "teacher in its own crops (python -m distilpose.record)."
            )
        self._joints = match_joints(self.skeleton, student.skeleton)
        self._cells = self._cell_matrix(student)
        self.student = student

    def prepare(self, datamodule: CocoDataModule) -> None:
        """Log what was read from the network's file or assumed, and a padding that is not its own."""
        rank_zero_only(log.info)(self.network.describe())
        shown, own = getattr(datamodule, "padding", None), self.network.convention.padding
        if shown is not None and abs(shown - own) > 0.01:
            rank_zero_only(log.warning)(
                f"The teacher {self.name} expects the box x {own:g}, but sees crops with data.padding={shown:g}: record it in "
                "its own crops (python -m distilpose.record), or train with its padding."
            )

    @torch.no_grad()
    def __call__(self, batch: PoseBatch) -> TeacherOutput:
        """Heat maps of a batch; see `Teacher`. Trust is the network's if the peak lies in the crop, else 0."""
        with torch.autocast(batch.image.device.type, enabled=False):
            output = self.network(self._crops(batch.image.float()))
            cells = self._cells.to(output.heatmaps).expand(len(output.heatmaps), -1, -1)
            width = peak_width(output.heatmaps)
            heatmaps = sample_maps(output.heatmaps, cells, width, self.student.heatmap_size, self.sigma)
        trust = output.trust * (output.trust >= self.least_trust) * self._is_inside(output.heatmaps, cells)
        tokens = None if self._has_bars else output.visual_tokens
        return reorder_joints(self._joints, TeacherOutput(heatmaps, tokens, None, trust), batch)

    def _crops(self, images: Tensor) -> Tensor:
        """The student's normalised crops as the network's: resized, with black bars, normalised by its mean and std."""
        size, own = (images.shape[-2], images.shape[-1]), self.network.convention.input_size
        mean, std = (images.new_tensor(value)[:, None, None] for value in (self.student.mean, self.student.std))
        pixels = images * std + mean
        if size != own:
            factor, shift = self.network.convention.of_crop(size)
            axes = [
                (torch.arange(count, device=images.device, dtype=torch.float32) - start) / factor
                for count, start in zip(own[::-1], shift, strict=True)
            ]
            # for grid_sample, -1 and 1 are the centres of the first and the last pixel
            x, y = (2 * at / max(1, extent - 1) - 1 for at, extent in zip(axes, size[::-1], strict=True))
            grid = torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1).expand(len(images), -1, -1, -1)
            pixels = F.grid_sample(pixels, grid, padding_mode="border", align_corners=True)
            columns, rows = ((at > -0.5) & (at < extent) for at, extent in zip(axes, size[::-1], strict=True))
            pixels = pixels * (rows[:, None] & columns)  # black bars
        mean, std = (images.new_tensor(list(value))[:, None, None] for value in (self.network.mean, self.network.std))
        return (pixels - mean) / std

    def _cell_matrix(self, student: PoseModel) -> Tensor:
        """(2, 3) matrix from a student's cells to cells of the network's maps."""
        size, convention = student.input_size, self.network.convention
        factor, shift = convention.of_crop((size[0], size[1]))
        per_cell = size[1] / student.heatmap_size[1]
        warp = np.array([[factor * per_cell, 0, shift[0]], [0, factor * per_cell, shift[1]]])
        return torch.from_numpy(convention.to_cells(warp)).float()

    def _is_inside(self, maps: Tensor, cells: Tensor) -> Tensor:
        """(N, K) whether the highest cells of maps lie in the student's crop."""
        own = (highest_cells(maps) - cells[:, None, :, 2]) / torch.stack(
            [cells[:, None, 0, 0], cells[:, None, 1, 1]], -1
        )
        stride = self.student.input_size[1] / self.student.heatmap_size[1]
        return in_crop(own * stride, self.student.input_size)

    def check(self, datamodule: CocoDataModule) -> str | None:
        """Check heat maps and accuracy on validation persons; see `check_teacher`."""
        device = getattr(self, "_device", torch.device("cpu"))
        return describe_check(self, datamodule.val_dataset(), self.check_persons, device) if self._check else None

    def move(self, fn: Callable[[Tensor], Tensor]) -> None:
        """Move the network to another device. It keeps its precision, which `trainer.precision` is not for."""
        self._device = device = fn(torch.zeros(1)).device
        self.network.move(lambda tensor: tensor.to(device))


class NetworkSource(Source):
    """A network in its own crops of photographs.

    Args:
        network: the network.
        device: device that runs it.
    """

    def __init__(self, network: Network, device: torch.device | str = "cpu"):
        self.network, self.device = network, torch.device(device)
        network.move(lambda tensor: tensor.to(self.device))
        self.name, self.skeleton, self.map_size = network.name, network.skeleton, network.convention.map_size
        self.about = {
            "name": network.name,
            **network.about,
            "convention": network.convention.to_dict(),
            "floor": network.floor,
        }

    @torch.no_grad()
    def __call__(self, images: Sequence[NDArray[np.uint8]], boxes: NDArray[np.float64]) -> SourceOutput:
        """Heat maps of one person in each of N images; see `Source`."""
        convention = self.network.convention
        warps = np.stack([convention.warp_of_box(box) for box in boxes])
        batch = crops_of(images, warps, convention.input_size, self.network.mean, self.network.std)
        output = self.network(batch.to(self.device))
        cells = None if output.cells is None else output.cells.cpu().numpy()
        return SourceOutput(
            output.heatmaps.float().cpu().numpy(), convention.to_cells(warps), output.trust.float().cpu().numpy(), cells
        )
