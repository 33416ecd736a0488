"""A teacher whose heat maps were recorded, warped into whatever view a training crop shows."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from distilpose.data import CocoDataModule
from distilpose.errors import DistilPoseError, check_flag, check_number
from distilpose.losses.distributions import FLOOR
from distilpose.models import PoseModel
from distilpose.outputs import PoseBatch, TeacherOutput
from distilpose.teachers.blazepose import BlazePose
from distilpose.teachers.check import least_accuracy
from distilpose.teachers.frozen import shared_joints
from distilpose.teachers.recorder import find_recording, joints_found, record, told_found
from distilpose.teachers.recording import WAY_OUT, Recording, open_recording
from distilpose.teachers.sources import BlazePoseSource


class RecordedTeacher:
    """Answers from a recording, in the joints and cells of its student; no network runs.

    The view of a crop is its `warp`: the maps are looked up through it, so mirror, turn, scale and shift cost one bilinear
    sampling. In a mirrored view left and right joints change places. A person who is not recorded gets empty maps and no
    trust.

    Args:
        recording: the maps.
        sigma: least width of a peak in cells of the student's map; narrower ones are widened to it, with their height kept.
            Maps recorded of a large crop would else be points to a small student. 0 leaves them as they are.
        least_trust: joints trusted less are not trusted at all.
        check: refuse to start a distillation from a recording that finds hardly more than the mean pose.
    """

    model = None

    def __init__(self, recording: Recording, sigma: float = 1.0, least_trust: float = 0.0, check: bool = True):
        check_flag("teacher.check", check)
        check_number("teacher.sigma", sigma, least=0)
        check_number("teacher.least_trust", least_trust, least=0, most=1)
        self.recording = recording
        self.skeleton = recording.skeleton
        self.name = f"{recording.about['source'].get('name')} (recorded)"
        self.floor = float(recording.about["source"].get("floor", FLOOR))
        self.sigma, self.least_trust, self.check = sigma, least_trust, check
        self.pupil: PoseModel | None = None

    def teach(self, pupil: PoseModel) -> None:
        """Answer from now on in a student's joints and cells.

        Raises:
            DistilPoseError: if they have no joint in common.
        """
        straight = shared_joints(self, pupil)
        mirrored = [straight[joint] for joint in pupil.skeleton.flip_order]
        # row 0 for views as they are, row 1 for mirrored ones; -1 for a joint that was not recorded
        joints = [[-1 if joint is None else joint for joint in row] for row in (straight, mirrored)]
        self._joints = torch.tensor(joints)
        self.pupil = pupil

    def __call__(self, batch: PoseBatch) -> TeacherOutput:
        """The maps of a batch of persons in the views their crops show.

        Returns:
            heatmaps (N, K, H/4, W/4), no tokens, and trust: that of the recording where the map's peak is in the crop.

        Raises:
            DistilPoseError: if none of them is recorded and this is training: the recording is of other data.
        """
        assert self.pupil is not None, "teach comes first"
        device = batch.warp.device
        warp = batch.warp.cpu().double()
        rows = self.recording.rows(batch.annotation_id.cpu().numpy(), batch.bbox.cpu().numpy())
        told, found = self._told(rows), torch.from_numpy(rows >= 0)
        if torch.is_grad_enabled() and not found.any():
            raise DistilPoseError(
                f"The recording {self.recording.path} has none of the {len(rows)} persons of a training batch (first "
                f"annotation {batch.annotation_id[0].item()}): {WAY_OUT} for these data."
            )
        joints = self._joints[(torch.linalg.det(warp[:, :, :2]) < 0).long()]
        known = (joints >= 0) & found[:, None]
        n, joints = torch.arange(len(joints))[:, None], joints.clamp(min=0)

        place = told["place"][n, joints].double() @ warp[:, :, :2].mT + warp[:, None, :, 2]
        inside = ((place >= 0) & (place <= place.new_tensor(self.pupil.input_size).flip(0) - 1)).all(-1)
        trust = told["trust"][n, joints] * (known & inside)
        trust = trust * (trust >= self.least_trust)

        maps = torch.from_numpy(self.recording.maps[rows]).to(device)[n.to(device), joints.to(device)].float()
        with torch.autocast(device.type, enabled=False):  # the blur is a product of matrices
            heatmaps = self._shown(maps, self._cells_of(warp, told["warp"]), told["width"][n, joints])
        return TeacherOutput(heatmaps * known.to(device)[..., None, None], None, None, trust.float().to(device))

    def _told(self, rows: NDArray[np.int64]) -> dict[str, Tensor]:
        """What the recording says of N persons beside their maps."""
        persons = self.recording.persons[rows]
        fields = ("warp", "place", "trust", "width")
        return {field: torch.from_numpy(np.ascontiguousarray(persons[field])) for field in fields}

    def _cells_of(self, warp: Tensor, recorded: Tensor) -> Tensor:
        """(N, 2, 3) float64 affine matrices from cells of the student's map to cells of the recorded one."""
        assert self.pupil is not None
        stride = self.pupil.input_size[1] / self.pupil.heatmap_size[1]
        turn = torch.linalg.solve(warp[:, :, :2], recorded[:, :, :2], left=False)  # crop pixels -> recorded cells
        shift = recorded[:, :, 2:] - turn @ warp[:, :, 2:]
        return torch.cat([turn * stride, shift], dim=-1)

    def _shown(self, maps: Tensor, cells: Tensor, width: Tensor) -> Tensor:
        """Recorded maps (N, K, h, w) on the student's grid, peaks of (N, K) width in recorded cells widened to `sigma`.

        The maps are sampled between the student's cells too and a margin around, finely enough for no peak to slip through,
        and that is blurred on the way to the student's cells.
        """
        assert self.pupil is not None
        scale = torch.linalg.det(cells[:, :, :2]).abs().sqrt()  # recorded cells a student's cell
        own = width.double().clamp(min=0.5) / scale[:, None]
        blur = (self.sigma**2 - own**2).clamp(min=0).sqrt()
        fine, margin = 1, 0
        if bool((blur > 0).any()):
            # a Gaussian sampled every second standard deviation keeps its sum to within a hundredth
            fine = min(8, max(1, math.ceil(float((0.5 / own[blur > 0]).max()))))
            margin = math.ceil(3 * self.sigma)
        rows, columns = self.pupil.heatmap_size
        y, x = (torch.arange(-margin * fine, (size - 1 + margin) * fine + 1) / fine for size in (rows, columns))
        grid = torch.stack([*torch.meshgrid(x, y, indexing="xy"), torch.ones(len(y), len(x))], dim=-1).double()
        grid = torch.einsum("hwc,nxc->nhwx", grid, cells)
        # to grid_sample, -1 and 1 are the middles of the first and the last cell
        last = grid.new_tensor([maps.shape[-1] - 1, maps.shape[-2] - 1])
        sampled = F.grid_sample(maps, (2 * grid / last - 1).to(maps), padding_mode="zeros", align_corners=True)
        if margin == 0:
            return sampled
        height = (1 + (blur / own) ** 2)[..., None, None].to(maps)  # what a blur takes from a Gaussian's peak
        down, across = (_blur(blur, at, size).to(maps) for at, size in ((y, rows), (x, columns)))
        return down @ sampled @ across.mT * height

    def examine(self, datamodule: CocoDataModule) -> str:
        """Refuse a recording of other persons or one near chance; else say how many labelled joints it finds.

        Raises:
            DistilPoseError: if it lacks any of the training persons, or finds hardly more joints than the mean pose does.
        """
        dataset = datamodule.train_dataset()
        lacking = self.recording.lacks(dataset)
        if len(lacking):
            raise DistilPoseError(
                f"The recording {self.recording.path} lacks {len(lacking)} of the {len(dataset)} training persons (first "
                f"annotation {lacking[0]}): {WAY_OUT} for these data."
            )
        found = joints_found(self.recording, dataset)
        if self.check and found is not None and found[0].value < least_accuracy(found[1].value):
            raise DistilPoseError(
                f"The recording {self.recording.path} is near chance on these {len(dataset)} persons: {told_found(found)}. "
                "Record a teacher of this kind of picture, or pass teacher.check=false to distil from it all the same."
            )
        return f"Teacher {self.name}: {len(dataset)} persons, {told_found(found)}"

    def move(self, fn: Callable[[Tensor], Tensor]) -> None:
        """Nothing: maps come from the disk to wherever the batch is."""

    def __deepcopy__(self, memo: dict[int, Any]) -> RecordedTeacher:
        """Itself, as `FrozenTeacher`."""
        return self


def _blur(sigma: Tensor, at: Tensor, size: int) -> Tensor:
    """(N, K, size, len(at)) weights of values sampled at places `at`, in cells, for cells 0 to size - 1; each sums to 1."""
    distance = torch.arange(size)[:, None] - at
    weights = torch.exp(-0.5 * (distance / sigma[..., None, None].clamp(min=0.02)) ** 2)
    return weights / weights.sum(-1, keepdim=True)


def load_recorded(file: str | Path | None, **options: Any) -> RecordedTeacher:
    """The teacher in a recording.

    Args:
        file: folder that `python -m distilpose.record` wrote.
        **options: of `RecordedTeacher`.
    """
    return RecordedTeacher(open_recording(file), **options)


def load_blazepose(
    file: str | Path | None,
    data: CocoDataModule,
    recording: str | Path | None = None,
    folder: str | Path = "runs/recordings",
    threads: int = 1,
    turns: int = 8,
    passes: int = 2,
    may_record: bool = True,
    **options: Any,
) -> RecordedTeacher:
    """BlazePose as a teacher: recorded for the training persons the first time, read from there ever after.

    Args:
        file: MediaPipe's model file.
        data: whose training persons it teaches.
        recording: folder of the recording; by default one in `folder` that is named after the data.
        folder: where recordings go that are given no place.
        threads: CPU threads of the network.
        turns: of `BlazePoseSource`.
        passes: of `BlazePoseSource`.
        may_record: whether persons who are not recorded are, which takes a while and stays; else they are refused.
        **options: of `RecordedTeacher`.

    Raises:
        DistilPoseError: they are not recorded and may not be.
    """
    source = BlazePoseSource(BlazePose(file, threads), turns, passes)
    data.prepare_data()
    dataset = data.train_dataset()
    place = Path(find_recording(source, dataset, folder) if recording is None else recording)
    if not may_record and not place.exists():
        raise DistilPoseError(
            f"BlazePose has not been recorded for these {len(dataset)} persons, which stays and takes a while: do so first, by "
            "python -m distilpose.record with the same teacher and data."
        )
    return RecordedTeacher(record(source, dataset, place), **options)
