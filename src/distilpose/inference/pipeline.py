"""From frames to persons: boxes, poses, identities. `Predictor.video` and the predict command use it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from distilpose.evaluation import best_persons, check_finite, to_rows
from distilpose.inference.box_sources import BoxSource
from distilpose.inference.boxes import Boxes
from distilpose.inference.images import Frame, ImageFiles
from distilpose.inference.results_journal import ResultsJournal
from distilpose.inference.tracking import Tracker
from distilpose.inference.videos import Video
from distilpose.outputs import Predictions

if TYPE_CHECKING:
    from distilpose.inference.predictor import Predictor

Row = dict[str, Any]
_GROUP_BATCHES = 4
_GROUP_PIXELS = 64_000_000


class FramePersons(NamedTuple):
    """A frame and the persons on it.

    Attributes:
        frame: the frame.
        persons: N persons without duplicates, best first.
        scores: (N,) score of each person.
    """

    frame: Frame
    persons: Predictions
    scores: Tensor


def find_persons(
    predictor: Predictor,
    frames: Iterable[Frame],
    boxes: BoxSource,
    nms_threshold: float = 0.9,
    one_by_one: bool = False,
    source: str = "The model",
) -> Iterator[list[FramePersons]]:
    """Find the persons on frames, a group of frames at a time.

    Args:
        predictor: finds the poses.
        frames: in order.
        boxes: finds the boxes.
        nms_threshold: of two persons in a frame whose OKS is above this, the better one is kept.
        one_by_one: whether to finish each frame before the next is read, for cameras. A box source with `needs_poses`
            implies it.
        source: name of the model, for error messages.

    Raises:
        DistilPoseError: the model gives keypoints or scores that are not finite.
    """
    model = predictor.model
    batch_size = 0 if one_by_one or boxes.needs_poses else predictor.batch_size
    for group in group_frames(((frame, boxes.locate(frame)) for frame in frames), batch_size):
        results = []
        for (frame, _), predictions in zip(group, predictor.predict_each(group), strict=True):
            check_finite(predictions, source)
            persons, scores = best_persons(
                predictions,
                model.skeleton,
                model.input_size,
                nms_threshold=nms_threshold,
                padding=predictor.padding,
            )
            boxes.update(persons.keypoints.double().numpy(), persons.scores.double().numpy())
            results.append(FramePersons(frame, persons, scores))
        yield results


def group_frames(frames: Iterable[tuple[Frame, Boxes]], batch_size: int) -> Iterator[list[tuple[Frame, Boxes]]]:
    """Group frames in order; a group is large enough for full batches and small enough for memory.

    The end of a group depends only on the frames in it. A prediction that is resumed between two groups therefore has the same
    batches, and the same results bit for bit. Frames without an image do not count.

    Args:
        frames: frames with their boxes.
        batch_size: a group is complete at four times as many persons or frames, or at 64 million pixels; 0 makes a group of
            each frame.
    """
    group: list[tuple[Frame, Boxes]] = []
    persons = images = pixels = 0
    full = _GROUP_BATCHES * batch_size
    for frame, boxes in frames:
        group.append((frame, boxes))
        persons += len(boxes.boxes)
        if frame.image is not None:
            images += 1
            pixels += frame.image.shape[0] * frame.image.shape[1]
        if persons >= full or images >= full or pixels >= _GROUP_PIXELS:
            yield group
            group, persons, images, pixels = [], 0, 0, 0
    if group:
        yield group


@dataclass
class RowPipeline:
    """Converts the frames of a source to rows in COCO's results format, and writes them into a journal.

    A row has image_id, category_id, keypoints, score and the person's `box`. For an image it also has its file_name, for a
    video the frame and its time in seconds, and with a tracker the track_id. Frames in the journal are not computed again.

    Attributes:
        predictor: finds the poses.
        boxes: finds the boxes.
        journal: rows of earlier starts; new rows are added.
        tracker: assigns identities and smooths; None does neither.
        fps: frame rate of the images of a folder, for a tracker that smooths.
        one_by_one: see `find_persons`.
        category_id: category of all rows.
        nms_threshold: see `find_persons`.
        source: see `find_persons`.
        position: number of frames so far.
    """

    predictor: Predictor
    boxes: BoxSource
    journal: ResultsJournal
    tracker: Tracker | None = None
    fps: float = 25.0
    one_by_one: bool = False
    category_id: int = 1
    nms_threshold: float = 0.9
    source: str = "The model"
    position: int = 0

    def run(self, frames: Iterable[Frame]) -> Iterator[tuple[Frame, list[Row]]]:
        """Frames in order, each with its rows, best person first. A second call continues after the last frame.

        Frames without an image also count for the tracker's patience and for the time of an image in a folder.
        """
        for frame, rows in self._untracked(frames):
            if self.tracker is not None:
                rows = self._track(self.tracker, frame, rows)
            self.position += 1
            yield frame, rows

    def frames_to_read(self, source: ImageFiles | Video, drawings: Mapping[str, Path]) -> Iterator[Frame]:
        """The frames of a source in order; an image is not read again if it is in the journal and its drawing exists.

        Args:
            source: images or a video.
            drawings: files of the drawings, by image name.
        """
        if isinstance(source, Video):
            return source.frames()

        def is_done(path: Path) -> bool:
            return source.ids[path] in self.journal.rows and (path.name not in drawings or drawings[path.name].exists())

        return source.frames(skip=is_done)

    def known_frames(self, source: ImageFiles | Video) -> list[Frame]:
        """Frames after the last one that `run` returned, up to the last in the journal, without images."""
        known = self.journal.rows
        if isinstance(source, ImageFiles):
            frames = list(source.frames(skip=lambda path: True))
        else:
            times = {number: rows[0]["time"] for number, rows in known.items() if rows}
            frames = [Frame(number, time=times.get(number, 0.0)) for number in range(max(known, default=-1) + 1)]
        left = frames[self.position :]
        last = max((index for index, frame in enumerate(left) if frame.number in known), default=-1)
        return left[: last + 1]

    def _untracked(self, frames: Iterable[Frame]) -> Iterator[tuple[Frame, list[Row]]]:
        """Rows without tracks, from the journal or the model."""
        known_rows = self.journal.rows
        for known, run in groupby(frames, key=lambda frame: frame.fault is None and frame.number in known_rows):
            if known:
                for frame in run:
                    joints = self._joints(known_rows[frame.number])
                    self.boxes.update(joints[..., :2], joints[..., 2])
                    yield frame, known_rows[frame.number]
                continue
            for group in find_persons(
                self.predictor, run, self.boxes, self.nms_threshold, self.one_by_one, self.source
            ):
                finished = [(result.frame, self._rows(result)) for result in group]
                self.journal.add([(frame.number, rows) for frame, rows in finished if frame.image is not None])
                yield from finished

    def _rows(self, result: FramePersons) -> list[Row]:
        frame, persons, scores = result
        origin: Row = {"file_name": frame.name}
        if frame.time is not None:
            origin = {"frame": frame.number, "time": round(frame.time, 6)}
        boxes = persons.bbox.double().numpy().round(3).tolist()
        rows = to_rows(persons, scores, self.category_id)
        return [{**row, **origin, "box": box} for row, box in zip(rows, boxes, strict=True)]

    def _track(self, tracker: Tracker, frame: Frame, rows: list[Row]) -> list[Row]:
        joints = self._joints(rows)
        boxes = np.array([row["box"] for row in rows], dtype=np.float64).reshape(-1, 4)
        time = self.position / self.fps if frame.time is None else frame.time
        track_ids, smoothed = tracker(time, joints[..., :2], joints[..., 2], boxes)
        triples = np.concatenate([smoothed, joints[..., 2:]], axis=-1).reshape(len(rows), 3 * joints.shape[1]).tolist()
        return [
            {**row, "keypoints": triple, "track_id": track_id}
            for row, triple, track_id in zip(rows, triples, track_ids.tolist(), strict=True)
        ]

    def _joints(self, rows: list[Row]) -> NDArray[np.float64]:
        """(N, K, 3): x, y and score."""
        keypoints = [row["keypoints"] for row in rows]
        return np.array(keypoints, dtype=np.float64).reshape(len(rows), self.predictor.skeleton.num_keypoints, 3)
