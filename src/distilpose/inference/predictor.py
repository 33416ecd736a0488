"""Poses of the persons on images and in videos."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from distilpose.data.geometry import check_rgb, given_boxes, region_of_box, warp_image, warp_of_region
from distilpose.errors import DistilPoseError
from distilpose.evaluation import FlipTest, ScoreMap, choose_device, concatenate, fitted_to_another, predict_batch
from distilpose.evaluation.oks import PADDING
from distilpose.inference.box_sources import DetectedBoxes
from distilpose.inference.boxes import Boxes
from distilpose.inference.detectors import Detector, WholeImage
from distilpose.inference.images import MAX_PIXELS, Frame, Image, read_rgb
from distilpose.inference.pipeline import find_persons
from distilpose.inference.tracking import Tracker
from distilpose.inference.videos import Video
from distilpose.models.checkpoint import load_model, weights_digest
from distilpose.models.model import PoseModel
from distilpose.models.remote import local_file
from distilpose.outputs import PoseBatch, Predictions
from distilpose.runs.run_of_checkpoint import run_padding
from distilpose.skeleton import Skeleton

log = logging.getLogger(__name__)


class VideoFrame(NamedTuple):
    """A frame of a video and the persons on it.

    Attributes:
        number: of the frame, from 0.
        time: seconds since the start.
        image: (H, W, 3) uint8, RGB.
        persons: without duplicates, best first.
        track_id: (N,) int64 identities, from 1; all 0 without tracking.
    """

    number: int
    time: float
    image: Image
    persons: Predictions
    track_id: NDArray[np.int64]


class Predictor:
    """Predicts poses on images and in videos with a trained model.

    Example:
        >>> predictor = Predictor("student.ckpt")
        >>> persons = predictor("photo.jpg", boxes=[[280, 44, 218, 346]])
        >>> persons.keypoints  # (1, 17, 2) image pixels

    Args:
        model: a student or a teacher, its file (.ckpt or .safetensors), or another source that `load_model` takes.
        device: "auto", "cpu", "cuda", "cuda:1", ….
        batch_size: crops in a forward pass.
        flip_test: average each crop with its mirror image; this takes twice the time.
        padding: factor on the box around a person, as in training; None takes the value of the file or of its run,
            else 1.25, with a warning.
        detector: finds the persons if no boxes are given; by default each image is one person.
        calibration: file that evaluate wrote, or its content; scores are then the similarity (OKS) to expect.
        max_pixels: images of more pixels are not decoded.
    """

    def __init__(
        self,
        model: PoseModel | str | Path,
        device: str = "auto",
        batch_size: int = 32,
        flip_test: FlipTest = False,
        padding: float | None = None,
        detector: Detector | None = None,
        calibration: ScoreMap | str | Path | None = None,
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        if batch_size < 1 or not (padding is None or 0 < padding < math.inf):
            raise DistilPoseError(
                f"batch_size={batch_size} and padding={padding} must be above 0, padding also finite."
            )
        if isinstance(model, (str, Path)):
            model = local_file(model)
        if padding is None:
            padding = run_padding(model) if isinstance(model, Path) else model.padding or PADDING
        self.device = choose_device(device)
        self.model = (load_model(model) if isinstance(model, Path) else model).eval().to(self.device)
        self.batch_size, self.flip_test, self.padding, self.max_pixels = batch_size, flip_test, padding, max_pixels
        self.detector: Detector = WholeImage() if detector is None else detector
        if isinstance(calibration, (str, Path)):
            about = {"weights": weights_digest(self.model), "flip_test": flip_test, "padding": self.padding}
            file, calibration = calibration, ScoreMap.load(calibration, self.skeleton)
            if difference := fitted_to_another(file, **about):
                log.warning(difference)
        self.calibration = calibration

    @property
    def skeleton(self) -> Skeleton:
        """The skeleton of the poses."""
        return self.model.skeleton

    def __call__(
        self,
        image: Image | str | Path,
        boxes: ArrayLike | None = None,
        scores: ArrayLike | None = None,
        image_id: int = 0,
    ) -> Predictions:
        """The pose in each box, in the order of the boxes.

        Args:
            image: (H, W, 3) uint8, RGB, or an image file.
            boxes: (N, 4) x, y, width, height in image pixels; by default those that the detector finds.
            scores: (N,) scores of the boxes; 1 by default.
            image_id: image id of the predictions.

        Raises:
            DistilPoseError: the image cannot be read or is not RGB uint8, a box is empty, not finite or outside the image, or
                there is not one finite score for each box.
        """
        if isinstance(image, (str, Path)):
            image = read_rgb(image, self.max_pixels)
        check_rgb(image)
        frame = Frame(image_id, image=image)
        if boxes is None:
            detections = DetectedBoxes(self.detector).locate(frame)
        else:
            table = given_boxes(boxes, image.shape[:2])
            detections = Boxes(table, np.ones(len(table)))
        if scores is not None:
            detections = detections._replace(
                scores=_given_scores(scores, None if boxes is None else len(detections.boxes))
            )
        (persons,) = self.predict_each([(frame, detections)])
        return persons

    @torch.no_grad()
    def predict_each(self, frames: Sequence[tuple[Frame, Boxes]]) -> list[Predictions]:
        """The persons of several images; crops of different images share batches.

        Args:
            frames: images and their boxes, each of which overlaps its image; a frame without an image has no boxes.

        Returns:
            The persons of each image in the order of its boxes, with the image's number.
        """
        persons = [
            (frame, box, float(score), index)
            for frame, (boxes, scores) in frames
            for index, (box, score) in enumerate(zip(boxes, scores, strict=True))
        ]
        parts = [self._no_predictions()]
        for start in range(0, len(persons), self.batch_size):
            parts += predict_batch(self.model, self._crops(persons[start : start + self.batch_size]), [self.flip_test])
        merged = concatenate(parts)
        if self.calibration is not None:
            merged = merged._replace(scores=self.calibration(merged.scores))
        counts = [len(boxes.boxes) for _, boxes in frames]
        return [Predictions(*piece) for piece in zip(*(field.split(counts) for field in merged), strict=True)]

    def video(
        self,
        source: str | int | Path,
        track: bool = True,
        smooth: bool = False,
        frames: int | None = None,
        nms_threshold: float = 0.9,
    ) -> Iterator[VideoFrame]:
        """Yield the frames of a video, webcam (its number) or stream (its address) with the persons on each.

        Args:
            source: video file, camera or address.
            track: whether persons keep an identity from frame to frame.
            smooth: whether the joints of each track are smoothed by a One-Euro filter.
            frames: stop after this many frames.
            nms_threshold: of two persons in a frame whose OKS is above this, the better one is kept.

        Raises:
            DistilPoseError: it cannot be opened.
        """
        video = Video(source, frames, self.max_pixels)
        tracker = Tracker(self.skeleton, smoothing={} if smooth else None) if track or smooth else None
        groups = find_persons(self, video.frames(), DetectedBoxes(self.detector), nms_threshold, one_by_one=video.live)
        for frame, persons, _ in chain.from_iterable(groups):
            assert frame.image is not None
            time, track_ids = frame.time or 0.0, np.zeros(len(persons.scores), np.int64)
            if tracker is not None:
                joints, scores, boxes = (
                    field.double().numpy() for field in (persons.keypoints, persons.scores, persons.bbox)
                )
                track_ids, smoothed = tracker(time, joints, scores, boxes)
                persons = persons._replace(keypoints=torch.from_numpy(smoothed).float())
            yield VideoFrame(frame.number, time, frame.image, persons, track_ids)

    def _crops(self, persons: Sequence[tuple[Frame, NDArray, float, int]]) -> PoseBatch:
        """The crops of the boxes as a batch without labels, on the device."""
        size, count, joints = self.model.input_size, len(persons), self.model.num_keypoints
        warps = [warp_of_region(region_of_box(box, size, self.padding), size) for _, box, _, _ in persons]
        images = [frame.image for frame, *_ in persons if frame.image is not None]
        crops = np.stack([warp_image(image, warp, size) for image, warp in zip(images, warps, strict=True)])
        batch = PoseBatch(
            image=self._normalise(crops),
            keypoints=torch.zeros(count, joints, 2),
            weights=torch.zeros(count, joints),
            labelled=torch.zeros(count, joints),
            warp=torch.from_numpy(np.stack(warps)).float(),
            image_id=torch.tensor([frame.number for frame, *_ in persons]),
            annotation_id=torch.tensor([index for *_, index in persons]),
            bbox=torch.from_numpy(np.stack([box for _, box, _, _ in persons])).float(),
            bbox_score=torch.tensor([score for _, _, score, _ in persons]),
        )
        return PoseBatch(*(field.to(self.device) for field in batch))

    def _normalise(self, crops: NDArray[np.uint8]) -> Tensor:
        """(N, H, W, 3) uint8 to (N, 3, H, W) float32, normalised by the model's mean and standard deviation."""
        mean, std = (torch.tensor(value).view(3, 1, 1) for value in (self.model.mean, self.model.std))
        return (torch.from_numpy(crops).permute(0, 3, 1, 2).float() / 255 - mean) / std

    def _no_predictions(self) -> Predictions:
        """No persons, in the right shapes."""
        joints, ids = self.model.num_keypoints, torch.zeros(0, dtype=torch.int64)
        return Predictions(
            torch.zeros(0, joints, 2), torch.zeros(0, joints), ids, ids, torch.zeros(0, 4), torch.zeros(0)
        )


def _given_scores(scores: ArrayLike, count: int | None) -> NDArray[np.float64]:
    """Scores from a user as a (count,) array; count is None if boxes were not given."""
    if count is None:
        raise DistilPoseError("scores are given without boxes, whose scores they are: give both, or leave scores out.")
    try:
        table = np.asarray(scores, dtype=np.float64)
    except (TypeError, ValueError, RuntimeError):  # torch raises the last for a tensor with gradients
        table = np.full(1, np.nan)
    if table.shape not in ((count,), (count, 1)) or not np.isfinite(table).all():
        shape = " x ".join(map(str, table.shape)) or "one number"
        raise DistilPoseError(
            f"scores ({shape}: {str(scores)[:60]}) must be one finite number for each of the {count} boxes."
        )
    return table.reshape(count)
