"""Poses of the persons on photographs and in videos."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from distilpose.data.geometry import can_be_cropped, given_boxes, region_of_box, warp_image, warp_of_region
from distilpose.errors import DistilPoseError, check_number
from distilpose.evaluation import (
    FlipTest,
    ScoreMap,
    best_persons,
    check_flip_test,
    choose_device,
    concatenate,
    predict_batch,
)
from distilpose.evaluation.oks import PADDING
from distilpose.inference.detectors import Detector, WholeImage
from distilpose.inference.following import Follower, grouped
from distilpose.inference.photographs import MAX_PIXELS, Frame, Image, read_photo
from distilpose.inference.sources import Boxes
from distilpose.inference.tracking import Tracker
from distilpose.inference.videos import Video, open_source
from distilpose.models import load_model
from distilpose.models.model import PoseModel
from distilpose.models.remote import local_file
from distilpose.outputs import PoseBatch, Predictions
from distilpose.runs.checkpoint_settings import run_padding
from distilpose.skeleton import Skeleton


class VideoFrame(NamedTuple):
    """A frame of a video and the persons on it.

    Attributes:
        number: of the frame, from 0.
        time: seconds since the start.
        image: (H, W, 3) uint8, RGB.
        persons: without doubles, best first.
        track_id: (N,) int64 identities, from 1; all 0 where nobody is tracked.
    """

    number: int
    time: float
    image: Image
    persons: Predictions
    track_id: NDArray[np.int64]


class Predictor:
    """A trained model that takes photographs and videos as they are.

    Example:
        >>> predictor = Predictor("student.ckpt")
        >>> persons = predictor("photo.jpg", boxes=[[280, 44, 218, 346]])
        >>> persons.keypoints  # (1, 17, 2) image pixels

    Args:
        model: a student or a teacher, or the file of one (.ckpt or .safetensors), or what else `load_model` takes.
        device: "auto", "cpu", "cuda", "cuda:1", …
        batch_size: crops a forward pass.
        flip_test: average each crop with its mirror image; twice the time.
        padding: factor on the box around a person, as in training; None takes that of the run a file lies in, else 1.25.
        detector: finds the persons where no boxes are given; by default the whole image is one.
        calibration: file that evaluate wrote, or what it holds; scores are then the similarity (OKS) to expect.
        max_pixels: images of more pixels are not unpacked.
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
        self.flip_test = check_flip_test(flip_test)
        check_number("batch_size", batch_size, least=1, whole=True)
        if isinstance(model, (str, Path)):
            model = local_file(model)
        if padding is None:
            padding = run_padding(model) if isinstance(model, Path) else PADDING
        check_number("padding", padding, above=0)
        self.device = choose_device(device)
        loaded = load_model(model) if isinstance(model, Path) else model
        self.model = loaded.eval().to(self.device)
        self.batch_size, self.padding, self.max_pixels = batch_size, padding, max_pixels
        self.detector: Detector = WholeImage() if detector is None else detector
        if isinstance(calibration, (str, Path)):
            calibration = ScoreMap.load(calibration, self.skeleton)
        self.calibration = calibration

    @property
    def skeleton(self) -> Skeleton:
        """The joints found."""
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
            boxes: (N, 4) x, y, width, height in image pixels; those the detector finds if not given.
            scores: (N,) of the boxes; 1 if not given.
            image_id: the number the predictions carry.

        Raises:
            DistilPoseError: the image cannot be read or is not RGB uint8, or a box is empty, not finite or outside the image.
        """
        if isinstance(image, (str, Path)):
            image = read_photo(image, self.max_pixels)
        if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            told = f"{image.dtype} {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__
            raise DistilPoseError(f"Expected an RGB image, uint8 of shape (height, width, 3), got {told}.")
        found = self.detector(image) if boxes is None else Boxes(given_boxes(boxes, image.shape[:2]), None)
        if scores is not None:
            found = Boxes(found.boxes, np.asarray(scores, dtype=np.float64))
        (persons,) = self.predict_each([(Frame(image_id, image=image), found)])
        return persons

    @torch.no_grad()
    def predict_each(self, frames: Sequence[tuple[Frame, Boxes]]) -> list[Predictions]:
        """The persons of several images, their crops cut into batches whatever image they are of.

        Args:
            frames: images and the boxes on them; None takes the whole image as one person. Without an image there are none.

        Returns:
            The persons of each image in the order of its boxes, carrying the image's number.

        Raises:
            DistilPoseError: a box is empty, huge or not finite.
        """
        waiting, counts = [], []
        for frame, persons in frames:
            regions = persons.boxes
            if regions is None:
                assert frame.image is not None
                regions = WholeImage()(frame.image).boxes
            assert regions is not None
            good = can_be_cropped(regions)
            if not good.all():
                raise DistilPoseError(
                    f"Box {regions[~good][0].tolist()} is empty, huge or not finite: expected x, y, width, height in pixels."
                )
            sure = np.ones(len(regions)) if persons.scores is None else persons.scores
            counts.append(len(regions))
            waiting += [
                (frame, box, float(score), place) for place, (box, score) in enumerate(zip(regions, sure, strict=True))
            ]
        parts = [self._nobody()]
        for start in range(0, len(waiting), self.batch_size):
            parts += predict_batch(self.model, self._crops(waiting[start : start + self.batch_size]), [self.flip_test])
        every = concatenate(parts)
        if self.calibration is not None:
            every = every._replace(scores=self.calibration(every.scores))
        return [Predictions(*piece) for piece in zip(*(field.split(counts) for field in every), strict=True)]

    def video(
        self,
        source: str | int | Path,
        track: bool = True,
        smooth: bool = False,
        frames: int | None = None,
        nms_threshold: float = 0.9,
    ) -> Iterator[VideoFrame]:
        """The frames of a video, webcam (its number) or stream (its address), with the persons on each, as they are found.

        Args:
            source: video file, camera or address.
            track: whether persons keep an identity from frame to frame.
            smooth: whether each track's joints are smoothed by a One-Euro filter.
            frames: end after so many.
            nms_threshold: of two persons in a frame whose OKS is above this, the better one is kept.

        Raises:
            DistilPoseError: it is no video, or cannot be opened.
        """
        video = open_source(source, frames, self.max_pixels)
        if not isinstance(video, Video):
            raise DistilPoseError(f"'{source}' is an image or a folder: give a video, a camera's number or an address.")
        tracker = Tracker(self.skeleton, smoothing={} if smooth else None) if track or smooth else None
        follower, one_by_one = Follower(self.detector), video.live or self.detector.every > 1
        for group in grouped(follower.each(video.frames()), 0 if one_by_one else self.batch_size):
            for (frame, _), found in zip(group, self.predict_each(group), strict=True):
                size, padding = self.model.input_size, self.padding
                persons, _ = best_persons(found, self.skeleton, size, nms_threshold=nms_threshold, padding=padding)
                points, sure = persons.keypoints.double().numpy(), persons.scores.double().numpy()
                follower.told(points, sure)
                numbers = np.zeros(len(points), np.int64)
                if tracker is not None:
                    numbers, points = tracker(frame.time or 0.0, points, sure, persons.bbox.double().numpy())
                shown = persons._replace(keypoints=torch.from_numpy(points).float())
                assert frame.image is not None
                yield VideoFrame(frame.number, frame.time or 0.0, frame.image, shown, numbers)

    def _crops(self, persons: Sequence[tuple[Frame, NDArray, float, int]]) -> PoseBatch:
        """The boxes' crops as a batch without labels, on the device."""
        size, count, joints = self.model.input_size, len(persons), self.model.num_keypoints
        warps = [warp_of_region(region_of_box(box, size, self.padding), size) for _, box, _, _ in persons]
        images = [frame.image for frame, *_ in persons if frame.image is not None]
        crops = np.stack([warp_image(image, warp, size) for image, warp in zip(images, warps, strict=True)])
        batch = PoseBatch(
            image=self._normalised(crops),
            keypoints=torch.zeros(count, joints, 2),
            weights=torch.zeros(count, joints),
            labelled=torch.zeros(count, joints),
            warp=torch.from_numpy(np.stack(warps)).float(),
            image_id=torch.tensor([frame.number for frame, *_ in persons]),
            annotation_id=torch.tensor([place for *_, place in persons]),
            bbox=torch.from_numpy(np.stack([box for _, box, _, _ in persons])).float(),
            bbox_score=torch.tensor([score for _, _, score, _ in persons]),
        )
        return PoseBatch(*(field.to(self.device) for field in batch))

    def _normalised(self, crops: NDArray[np.uint8]) -> Tensor:
        """(N, H, W, 3) uint8 to (N, 3, H, W) float32 with the model's mean and deviation taken out."""
        mean, std = (torch.tensor(value).view(3, 1, 1) for value in (self.model.mean, self.model.std))
        return (torch.from_numpy(crops).permute(0, 3, 1, 2).float() / 255 - mean) / std

    def _nobody(self) -> Predictions:
        """No persons, in the right shapes: what an empty list of boxes gives."""
        joints, ids = self.model.num_keypoints, torch.zeros(0, dtype=torch.int64)
        return Predictions(
            torch.zeros(0, joints, 2), torch.zeros(0, joints), ids, ids, torch.zeros(0, 4), torch.zeros(0)
        )
