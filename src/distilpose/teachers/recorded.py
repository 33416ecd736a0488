"""A teacher that reads recorded heat maps and warps them into the view of each training crop."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
import torch
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
from distilpose.teachers.sampling import in_crop, sample_maps


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

    tokens_advice = (
        "use the teacher live (such as teacher=vitpose or teacher=checkpoint), as recordings hold heat maps only"
    )

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
        trust = recorded["trust"][n, joints] * (known & in_crop(position, self.student.input_size))
        trust = trust * (trust >= self.least_trust)

        maps = torch.from_numpy(self.recording.maps[rows]).to(device)[n.to(device), joints.to(device)].float()
        with torch.autocast(device.type, enabled=False):  # the blur is a product of matrices
            cells, width = self._cell_matrices(warp, recorded["warp"]), recorded["width"][n, joints]
            heatmaps = sample_maps(maps, cells, width, self.student.heatmap_size, self.sigma)
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
