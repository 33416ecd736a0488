"""From frames to result rows: persons, poses, identities, smoothing; what was found before is not looked for again."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distilpose.evaluation import best_persons, check_finite, to_rows
from distilpose.inference.following import Follower, GivenBoxes, grouped
from distilpose.inference.journal import Journal
from distilpose.inference.photographs import Frame
from distilpose.inference.predictor import Predictor
from distilpose.inference.tracking import Tracker

Row = dict[str, Any]


@dataclass
class Pipeline:
    """Makes rows in COCO's results format of a source's frames.

    A row holds image_id, category_id, keypoints, score and the person's `box`; of a photograph its file_name; of a video the
    frame and its time in seconds; with a tracker the track_id.

    Attributes:
        predictor: finds the poses.
        boxes: where the persons are.
        journal: what was found before, and where what is found is kept.
        tracker: gives identities, and smooths; None leaves persons as they are found.
        fps: images of a folder a second, for a tracker that smooths.
        one_by_one: whether each frame is finished before the next is read.
        place: how many frames there were so far.
        category_id: of all rows.
        nms_threshold: of two persons in an image whose OKS is above this, the better one is kept.
        source: the model's name, for messages.
    """

    predictor: Predictor
    boxes: Follower | GivenBoxes
    journal: Journal
    tracker: Tracker | None = None
    fps: float = 25.0
    one_by_one: bool = False
    category_id: int = 1
    nms_threshold: float = 0.9
    source: str = "The model"
    place: int = 0

    def run(self, frames: Iterable[Frame]) -> Iterator[tuple[Frame, list[Row]]]:
        """Frames in order, each with its rows, best person first.

        Those without an image count for the identities' patience and the time of an image of a folder. Called again, it goes
        on behind the last.
        """
        for frame, rows in self._found(frames):
            if self.tracker is not None:
                joints = self._joints(rows)
                boxes = np.array([row["box"] for row in rows], dtype=np.float64).reshape(-1, 4)
                time = self.place / self.fps if frame.time is None else frame.time
                numbers, shown = self.tracker(time, joints[..., :2], joints[..., 2], boxes)
                triples = (
                    np.concatenate([shown, joints[..., 2:]], axis=-1).reshape(len(rows), 3 * joints.shape[1]).tolist()
                )
                follow = zip(rows, triples, numbers.tolist(), strict=True)
                rows = [{**row, "keypoints": triple, "track_id": number} for row, triple, number in follow]
            self.place += 1
            yield frame, rows

    def _found(self, frames: Iterable[Frame]) -> Iterator[tuple[Frame, list[Row]]]:
        """Rows as the model finds them, or as the journal has them."""
        size = 0 if self.one_by_one else self.predictor.batch_size
        for known, run in groupby(frames, key=lambda one: one.fault is None and one.number in self.journal.rows):
            if known:
                for frame in run:
                    rows = self.journal.rows[frame.number]
                    joints = self._joints(rows)
                    self.boxes.told(joints[..., :2], joints[..., 2])
                    yield frame, rows
                continue
            for group in grouped(self.boxes.each(run), size):
                found = self.predictor.predict_each(group)
                done = [(frame, self._rows(frame, persons)) for (frame, _), persons in zip(group, found, strict=True)]
                self.journal.add([(frame.number, rows) for frame, rows in done if frame.image is not None])
                yield from done

    def _rows(self, frame: Frame, persons: Any) -> list[Row]:
        check_finite(persons, self.source)
        model = self.predictor.model
        kept, scores = best_persons(
            persons,
            model.skeleton,
            model.input_size,
            nms_threshold=self.nms_threshold,
            padding=self.predictor.padding,
        )
        self.boxes.told(kept.keypoints.double().numpy(), kept.scores.double().numpy())
        about: Row = {"file_name": frame.name}
        if frame.time is not None:
            about = {"frame": frame.number, "time": round(frame.time, 6)}
        places = kept.bbox.double().numpy().round(3).tolist()
        rows = to_rows(kept, scores, self.category_id)
        return [{**row, **about, "box": box} for row, box in zip(rows, places, strict=True)]

    def _joints(self, rows: list[Row]) -> NDArray[np.float64]:
        """(N, K, 3): x, y and score."""
        return np.array([row["keypoints"] for row in rows], dtype=np.float64).reshape(
            len(rows), self.predictor.skeleton.num_keypoints, 3
        )
