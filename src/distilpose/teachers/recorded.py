"""A teacher that reads recorded heat maps and warps them into the view of each training crop."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import torch.nn.functional as F
from annotated_types import Ge, Le
from numpy.typing import NDArray
from torch import Tensor

from distilpose.data import CocoDataModule
from distilpose.errors import DistilPoseError
from distilpose.losses.distributions import FLOOR
from distilpose.models import PoseModel
from distilpose.outputs import PoseBatch, TeacherOutput
from distilpose.teachers.base import Teacher, match_joints
from distilpose.teachers.check import least_accuracy
from distilpose.teachers.recorder import describe_accuracy, recording_accuracy
from distilpose.teachers.recording_file import WAY_OUT, Recording, open_recording


class RecordedTeacher(Teacher):
    """Reads heat maps from a recording; no network runs.

    The view of a crop is its `warp`. The maps are sampled through it, so flip, rotation, scale and shift cost one bilinear
    sampling. In a mirrored view left and right joints are swapped. A person who is not recorded gets empty maps and no trust.

    Args:
        recording: the maps.
        sigma: least width of a peak in cells of the student's map. Narrower peaks are widened to it at the same height;
            otherwise maps recorded from a large crop would be points to a small student. 0 does not change them.
        least_trust: the trust of joints below it becomes 0.
        check: reject a recording whose accuracy on labelled joints is near the mean pose's.
    """

    def __init__(self, recording: Recording, sigma: float = 1.0, least_trust: float = 0.0, check: bool = True):
        self.recording = recording
        self.skeleton = recording.skeleton
        self.name = f"{recording.about['source'].get('name')} (recorded)"
        self.floor = float(recording.about["source"].get("floor", FLOOR))
        self.sigma, self.least_trust = sigma, least_trust
        self._check = check

    def set_student(self, student: PoseModel) -> None:
        """Set the student; see `Teacher`."""
        unmirrored = match_joints(self.skeleton, student.skeleton)
        mirrored = [unmirrored[joint] for joint in student.skeleton.flip_order]
        # row 0 for normal views, row 1 for mirrored ones; -1 for a joint that was not recorded
        joints = [[-1 if joint is None else joint for joint in row] for row in (unmirrored, mirrored)]
        self._joints = torch.tensor(joints)
        self.student = student

    def __call__(self, batch: PoseBatch) -> TeacherOutput:
        """Heat maps of a batch; see `Teacher`. Trust is the recording's if the map's peak is in the crop, else 0."""
        device = batch.warp.device
        warp = batch.warp.cpu().double()
        rows = self.recording.rows(batch.annotation_id.cpu().numpy(), batch.bbox.cpu().numpy())
        recorded = self._persons(rows)
        joints = self._joints[(torch.linalg.det(warp[:, :, :2]) < 0).long()]
        known = (joints >= 0) & torch.from_numpy(rows >= 0)[:, None]
        n, joints = torch.arange(len(joints))[:, None], joints.clamp(min=0)

        position = recorded["place"][n, joints].double() @ warp[:, :, :2].mT + warp[:, None, :, 2]
        inside = ((position >= 0) & (position <= position.new_tensor(self.student.input_size).flip(0) - 1)).all(-1)
        trust = recorded["trust"][n, joints] * (known & inside)
        trust = trust * (trust >= self.least_trust)

        maps = torch.from_numpy(self.recording.maps[rows]).to(device)[n.to(device), joints.to(device)].float()
        with torch.autocast(device.type, enabled=False):  # the blur is a product of matrices
            heatmaps = self._sample(maps, self._cell_matrices(warp, recorded["warp"]), recorded["width"][n, joints])
        return TeacherOutput(heatmaps * known.to(device)[..., None, None], None, None, trust.float().to(device))

    def _persons(self, rows: NDArray[np.int64]) -> dict[str, Tensor]:
        """The recording's fields of N persons, without their maps."""
        persons = self.recording.persons[rows]
        fields = ("warp", "place", "trust", "width")
        return {field: torch.from_numpy(np.ascontiguousarray(persons[field])) for field in fields}

    def _cell_matrices(self, warp: Tensor, recorded: Tensor) -> Tensor:
        """(N, 2, 3) float64 affine matrices from cells of the student's map to cells of the recorded map."""
        stride = self.student.input_size[1] / self.student.heatmap_size[1]
        turn = torch.linalg.solve(warp[:, :, :2], recorded[:, :, :2], left=False)  # crop pixels -> recorded cells
        shift = recorded[:, :, 2:] - turn @ warp[:, :, 2:]
        return torch.cat([turn * stride, shift], dim=-1)

    def _sample(self, maps: Tensor, cells: Tensor, width: Tensor) -> Tensor:
        """Sample recorded maps (N, K, h, w) on the student's grid. Peaks narrower than `sigma` are widened to it.

        The maps are first sampled at the student's cells, between them and in a margin around them, finely enough to miss no
        peak. They are then blurred to the student's cells.

        Args:
            maps: the recorded maps.
            cells: matrices of `_cell_matrices`.
            width: (N, K) standard deviations of the peaks in recorded cells.
        """
        scale = torch.linalg.det(cells[:, :, :2]).abs().sqrt()  # recorded cells in one of the student's cells
        unblurred = width.double().clamp(min=0.5) / scale[:, None]  # in the student's cells
        blur = (self.sigma**2 - unblurred**2).clamp(min=0).sqrt()
        fine, margin = 1, 0
        if bool((blur > 0).any()):
            # sampled every two standard deviations, a Gaussian's sum has an error of one per cent
            fine = min(8, max(1, math.ceil(float((0.5 / unblurred[blur > 0]).max()))))
            margin = math.ceil(3 * self.sigma)
        rows, columns = self.student.heatmap_size
        y, x = (torch.arange(-margin * fine, (size - 1 + margin) * fine + 1) / fine for size in (rows, columns))
        grid = torch.stack([*torch.meshgrid(x, y, indexing="xy"), torch.ones(len(y), len(x))], dim=-1).double()
        grid = torch.einsum("hwc,nxc->nhwx", grid, cells)
        # for grid_sample, -1 and 1 are the centres of the first and the last cell
        last = grid.new_tensor([maps.shape[-1] - 1, maps.shape[-2] - 1])
        sampled = F.grid_sample(maps, (2 * grid / last - 1).to(maps), padding_mode="zeros", align_corners=True)
        if margin == 0:
            return sampled
        # a blur lowers a Gaussian's peak by this factor
        height = (1 + (blur / unblurred) ** 2)[..., None, None].to(maps)
        down, across = (_blur(blur, at, size).to(maps) for at, size in ((y, rows), (x, columns)))
        return down @ sampled @ across.mT * height

    def check(self, datamodule: CocoDataModule) -> str:
        """Check that every training person is recorded, and that the maps are more accurate than the mean pose."""
        dataset = datamodule.train_dataset()
        missing = self.recording.missing_persons(dataset)
        if len(missing):
            raise DistilPoseError(
                f"The recording {self.recording.path} lacks {len(missing)} of the {len(dataset)} training persons (first "
                f"annotation {missing[0]}): {WAY_OUT} for these data."
            )
        accuracy = recording_accuracy(self.recording, dataset)
        if self._check and accuracy is not None and accuracy[0].value < least_accuracy(accuracy[1].value):
            raise DistilPoseError(
                f"The recording {self.recording.path} is near chance on these {len(dataset)} persons: "
                f"{describe_accuracy(accuracy)}. Record a teacher for this kind of image, or pass teacher.check=false to "
                "distil from it regardless."
            )
        return f"Teacher {self.name}: {len(dataset)} persons, {describe_accuracy(accuracy)}"


def _blur(sigma: Tensor, at: Tensor, size: int) -> Tensor:
    """Weights (N, K, size, len(at)) that blur samples at positions `at` (in cells) to cells 0 to size - 1; their sum is 1."""
    distance = torch.arange(size)[:, None] - at
    weights = torch.exp(-0.5 * (distance / sigma[..., None, None].clamp(min=0.02)) ** 2)
    return weights / weights.sum(-1, keepdim=True)


def load_recorded(
    file: str | Path,
    sigma: Annotated[float, Ge(0)] = 1.0,
    least_trust: Annotated[float, Ge(0), Le(1)] = 0.0,
    check: bool = True,
) -> RecordedTeacher:
    """The teacher in a recording.

    Args:
        file: folder written by `python -m distilpose.record`.
        sigma: least width of a peak in cells of the student's map.
        least_trust: joints with less trust are learnt from their labels alone.
        check: reject a recording whose accuracy on labelled joints is near the mean pose's.
    """
    return RecordedTeacher(open_recording(file), sigma, least_trust, check)
