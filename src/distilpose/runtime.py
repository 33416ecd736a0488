"""Poses from an exported ONNX file, with only onnxruntime, numpy and OpenCV installed.

    python -m distilpose.runtime student.onnx photo.jpg [--boxes X Y W H ...] [--json]

`python -m distilpose.export format=onnx` writes the file. Its metadata has everything else that a prediction needs.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

# OpenCV reads this on import; the command does not decode larger images
if __name__ == "__main__":
    os.environ["OPENCV_IO_MAX_IMAGE_PIXELS"] = "100000000"

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from distilpose.cli.process import silence_stdout
from distilpose.data.geometry import check_rgb, given_boxes, region_of_box, warp_image, warp_of_region
from distilpose.errors import DistilPoseError
from distilpose.exporting.onnx_file import INPUT, network_input, open_session, read_file
from distilpose.skeleton import Skeleton


class Poses(NamedTuple):
    """Poses on an image.

    Attributes:
        keypoints: (N, K, 2) float32 image pixels.
        scores: (N, K) float32 score of each joint; 1 if scores were not trained.
        boxes: (N, 4) x, y, width, height in image pixels, as given.
    """

    keypoints: NDArray[np.float32]
    scores: NDArray[np.float32]
    boxes: NDArray[np.float64]


class Runtime:
    """Finds poses on images with an exported student or teacher.

    Example:
        >>> runtime = Runtime("student.onnx")
        >>> poses = runtime(image_rgb, boxes=[[280, 44, 218, 346]])
        >>> poses.keypoints  # (1, 17, 2) image pixels

    Args:
        file: the ONNX file.
        batch_size: crops in a forward pass.
        flip_test: average each crop with its mirror image, which takes twice the time; students only.
        threads: threads of onnxruntime, which chooses the number by default.
        providers: onnxruntime's execution providers, such as CUDAExecutionProvider.

    Attributes:
        about: the file's metadata.
        skeleton: joints of the model.
        input_size: (H, W) of the crops.

    Raises:
        DistilPoseError: the file cannot be read, is not an ONNX export of this package, or refers to weights in other
            files; or onnxruntime is not installed.
    """

    def __init__(
        self,
        file: str | Path,
        batch_size: int = 32,
        flip_test: bool = False,
        threads: int | None = None,
        providers: Sequence[str] = ("CPUExecutionProvider",),
    ) -> None:
        self._session, self.about = open_session(file, threads, providers)
        if flip_test and self.about["kind"] != "student":
            raise DistilPoseError(
                f"{file} is a teacher, whose flip test averages heat maps before they are decoded: set flip_test=False."
            )
        self.skeleton = Skeleton.from_dict(self.about["skeleton"])
        self.input_size: tuple[int, int] = tuple(self.about["input_size"])
        self.batch_size, self.flip_test = batch_size, flip_test

    def __call__(self, image: NDArray[np.uint8], boxes: ArrayLike | None = None) -> Poses:
        """The pose in each box, in the order of the boxes.

        Args:
            image: (H, W, 3) uint8, RGB.
            boxes: (N, 4) x, y, width, height in image pixels; the whole image by default.

        Raises:
            DistilPoseError: the image is not RGB uint8, or a box is empty, not finite or outside the image.
        """
        check_rgb(image)
        height, width = image.shape[:2]
        regions = given_boxes([0, 0, width, height] if boxes is None else boxes, (height, width))
        count, size, padding = self.skeleton.num_keypoints, self.input_size, self.about["padding"]
        keypoints = np.zeros((len(regions), count, 2), np.float32)
        scores = np.zeros((len(regions), count), np.float32)
        for start in range(0, len(regions), self.batch_size):
            piece = slice(start, min(start + self.batch_size, len(regions)))
            warps = [warp_of_region(region_of_box(box, size, padding), size) for box in regions[piece]]
            positions, scores[piece] = self.crops(np.stack([warp_image(image, warp, size) for warp in warps]))
            for index, warp in zip(range(piece.start, piece.stop), warps, strict=True):
                inverse = np.linalg.inv(warp[:, :2])
                keypoints[index] = (positions[index - start] * [size[1], size[0]] - warp[:, 2]) @ inverse.T
        return Poses(keypoints, scores, regions)

    def crops(self, crops: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Keypoints (N, K, 2) in [0, 1] of the crop and scores (N, K) of crops (N, H, W, 3), uint8 RGB of the model's size."""
        keypoints, scores = self._run(crops)
        if self.flip_test:
            # a mirrored pixel u lies at W - 1 - u, and a keypoint is u / W
            flipped, flipped_scores = self._run(crops[:, :, ::-1])
            order, width = self.skeleton.flip_order, crops.shape[2]
            flipped = flipped[:, order]
            flipped[..., 0] = (width - 1) / width - flipped[..., 0]
            half = np.float32(0.5)
            keypoints, scores = (keypoints + flipped) * half, (scores + flipped_scores[:, order]) * half
        return keypoints, scores

    def _run(self, crops: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        keypoints, scores = self._session.run(["keypoints", "scores"], {INPUT: network_input(crops, self.about)})
        return keypoints, scores


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(
        prog="python -m distilpose.runtime", description="Poses from an exported ONNX file."
    )
    parser.add_argument("model", help="file written by python -m distilpose.export format=onnx")
    parser.add_argument("image", help="image file")
    parser.add_argument(
        "--boxes",
        nargs="+",
        type=float,
        metavar="X Y W H",
        help="four numbers for each person; by default the whole image",
    )
    parser.add_argument("--flip-test", action="store_true", help="average each crop with its mirror image (students)")
    parser.add_argument("--json", action="store_true", help="print a JSON object instead of a table")
    args = parser.parse_args(arguments)
    if args.boxes is not None and len(args.boxes) % 4:
        parser.error(f"--boxes takes four numbers for each person (x, y, width, height), got {len(args.boxes)}")
    try:
        boxes = None if args.boxes is None else np.reshape(args.boxes, (-1, 4))
        runtime = Runtime(args.model, flip_test=args.flip_test)
        poses = runtime(_read_rgb(args.image), boxes)
    except DistilPoseError as error:
        sys.exit(f"error: {error}")
    try:
        _print_poses(runtime.skeleton, poses, args.json)
        sys.stdout.flush()
    except BrokenPipeError:
        silence_stdout()


def _print_poses(skeleton: Skeleton, poses: Poses, as_json: bool) -> None:
    if as_json:
        content = {"names": list(skeleton.names), **{k: v.tolist() for k, v in poses._asdict().items()}}
        print(json.dumps(content))
        return
    for number, (keypoints, scores) in enumerate(zip(poses.keypoints, poses.scores, strict=True), start=1):
        print(f"person {number}")
        for name, (x, y), score in zip(skeleton.names, keypoints, scores, strict=True):
            print(f"  {name:<16} {x:8.1f} {y:8.1f}   {score:.3f}")


def _read_rgb(path: str) -> NDArray[np.uint8]:
    content = read_file(path)
    try:
        image = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error:
        image = None
    if image is None:
        raise DistilPoseError(
            f"{path} is not an image that OpenCV can read, or has more than 100 million pixels: give another image file."
        )
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB).astype(np.uint8, copy=False)


if __name__ == "__main__":
    main()
