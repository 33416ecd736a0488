"""BlazePose as a teacher: its heat maps are recorded for the training persons."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import cv2
import numpy as np
import torch
from annotated_types import Ge, Le
from numpy.typing import NDArray

from distilpose.data import CocoDataModule
from distilpose.data.geometry import Region, region_of_box, warp_image, warp_of_region
from distilpose.errors import DistilPoseError
from distilpose.teachers.base import Source, SourceOutput
from distilpose.teachers.blazepose_network import CELLS, LIMBS, SIDE, BlazePose, BlazePoseOutput
from distilpose.teachers.recorded import RecordedTeacher
from distilpose.teachers.recorder import find_recording, record


class BlazePoseSource(Source):
    """BlazePose in the view it was trained for: the body upright, the middle of the hips in the crop's centre.

    MediaPipe gets that view from a detector. Here the person's box is shown at several turns, and the view with the highest
    peaks is kept. The network's own two body points then define the next view by MediaPipe's rule: centre at the hips, side
    2.5 times the circle's radius, its upper point straight up. Among these later views the one with the highest peaks is used.
    Trust is the height of the peak: on Leeds Sports 33 % of the peaks of 0.3 are correct, and 90 % of the peaks of 0.9.

    Args:
        model: the network.
        turns: number of rotations of the box that are tried, evenly spread over the circle.
        passes: number of further views, each from the network's body points of the view before.
        padding: factor on the box for the rotations.
        pool: number of cells that are averaged into one, along each side of a map. A pool of 2 needs a
            quarter of the storage, without a measurable loss of accuracy.
    """

    name = "blazepose"

    def __init__(self, model: BlazePose, turns: int = 8, passes: int = 2, padding: float = 1.5, pool: int = 2):
        self.model = model
        self.turns, self.passes, self.padding, self.pool = turns, passes, padding, pool
        self.skeleton = model.skeleton
        self.map_size = (CELLS // pool, CELLS // pool)
        views = {"turns": turns, "passes": passes, "padding": padding, "pool": pool}
        self.about = {"name": self.name, "sha256": model.digest, **views}

    def __call__(self, images: Sequence[NDArray[np.uint8]], boxes: NDArray[np.float64]) -> SourceOutput:
        """Heat maps of one person in each of N images; see `Source`."""
        views = [self._best_view(image, box) for image, box in zip(images, boxes, strict=True)]
        heatmaps = np.stack([view.output.heatmaps for view in views])
        pooled = self._pool(heatmaps)
        pooled /= np.maximum(pooled.max(axis=(-2, -1), keepdims=True), 1e-6)
        warps = np.stack([self._warp_to_cells(view.warp) for view in views])
        return SourceOutput(pooled, warps, heatmaps.max(axis=(-2, -1)))

    def _best_view(self, image: NDArray[np.uint8], box: NDArray[np.float64]) -> _View:
        region = region_of_box(box, (SIDE, SIDE), self.padding)
        box_views = [self._view(image, region, 360 * turn / self.turns) for turn in range(self.turns)]
        best = latest = max(box_views, key=lambda view: view.quality)
        body_views: list[_View] = []
        for _ in range(self.passes):
            side = 2.5 * float(np.linalg.norm(latest.body[1] - latest.body[0]))
            # a body point is far off: the view of the box is better
            if not 0.25 <= side / float(region.size[0]) <= 4:
                break
            across, down = latest.body[1] - latest.body[0]
            body_region = Region(latest.body[0].astype(np.float32), np.full(2, side, dtype=np.float32))
            latest = self._view(image, body_region, float(np.degrees(np.arctan2(across, -down))))
            body_views.append(latest)
        return max(body_views, key=lambda view: view.quality, default=best)

    def _view(self, image: NDArray[np.uint8], region: Region, turn: float) -> _View:
        warp = warp_of_region(region, (SIDE, SIDE), turn)
        crop = cv2.cvtColor(warp_image(image, warp, (SIDE, SIDE)), cv2.COLOR_BGR2RGB)
        output = self.model(crop)  # type: ignore[arg-type]
        back = cv2.invertAffineTransform(warp)
        quality = float(output.peaks[list(LIMBS)].mean())
        return _View(output, output.body @ back[:, :2].T + back[:, 2], warp, quality)

    def _warp_to_cells(self, warp: NDArray[np.float64]) -> NDArray[np.float64]:
        """Matrix from image pixels to pooled cells: cell i has its centre at crop pixel 4 i - 0.5."""
        cells = warp * (CELLS / SIDE)
        cells[:, 2] += 0.5 * CELLS / SIDE
        cells = cells / self.pool
        cells[:, 2] -= (self.pool - 1) / (2 * self.pool)
        return cells

    def _pool(self, heatmaps: NDArray[np.float32]) -> NDArray[np.float32]:
        count, joints = heatmaps.shape[:2]
        rows, columns = self.map_size
        return heatmaps.reshape(count, joints, rows, self.pool, columns, self.pool).mean(axis=(3, 5))


class _View(NamedTuple):
    """One view of a person.

    Attributes:
        output: output of the network.
        body: (2, 2) its body points in image pixels.
        warp: (2, 3) matrix from image pixels to crop pixels.
        quality: mean peak of the limbs.
    """

    output: BlazePoseOutput
    body: NDArray[np.float64]
    warp: NDArray[np.float64]
    quality: float


def load_blazepose(
    file: str | Path,
    data: CocoDataModule,
    recording: str | Path | None = None,
    folder: str | Path = "runs/recordings",
    threads: Annotated[int, Ge(1)] = 1,
    turns: Annotated[int, Ge(1)] = 8,
    passes: Annotated[int, Ge(0)] = 2,
    may_record: bool = True,
    sigma: Annotated[float, Ge(0)] = 1.0,
    least_trust: Annotated[float, Ge(0), Le(1)] = 0.0,
    check: bool = True,
) -> RecordedTeacher:
    """BlazePose as a teacher: the training persons are recorded the first time, and later read from the recording.

    Args:
        file: MediaPipe's model file, pose_landmark_full.tflite.
        data: the data with the training persons.
        recording: folder of the recording; null: one in `folder`, named after the data.
        folder: folder of recordings that are named after their data.
        threads: CPU threads of the network.
        turns: number of rotations of a person's box that are tried. Fewer are quicker and less accurate.
        passes: number of further views of a person. Fewer are quicker and less accurate.
        may_record: record persons who are not recorded yet, which takes a while; false raises an error instead.
        sigma: least width of a peak in cells of the student's map.
        least_trust: joints with less trust are learnt from their labels alone.
        check: reject a recording whose accuracy on labelled joints is near the mean pose's.

    Raises:
        DistilPoseError: the persons are not recorded, and `may_record` is false.
    """
    source = BlazePoseSource(BlazePose(file, threads), turns, passes)
    data.prepare_data()
    dataset = data.train_dataset()
    path = Path(find_recording(source, dataset, folder) if recording is None else recording)
    if not may_record and not path.exists():
        raise DistilPoseError(
            f"BlazePose is not recorded for these {len(dataset)} persons, which takes a while: record it first by "
            "python -m distilpose.record with the same teacher and data."
        )
    return RecordedTeacher(record(source, dataset, path), sigma, least_trust, check)


def blazepose_source(settings: Mapping[str, Any], padding: float, device: torch.device) -> BlazePoseSource:
    """The source for `record` from the settings of `load_blazepose`. It ignores padding and device: it runs on the CPU."""
    return BlazePoseSource(BlazePose(settings["file"], settings["threads"]), settings["turns"], settings["passes"])
