"""BlazePose, MediaPipe's pose network, as published: it takes one crop and returns 33 joints and their heat maps.

The model file is MediaPipe's (Apache-2.0). It runs under LiteRT on the CPU and is never trained.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from distilpose.errors import DistilPoseError
from distilpose.skeleton import Skeleton

# the joints in the network's order; left and right are the person's
BLAZEPOSE = Skeleton.from_names(
    (
        "nose", "left_eye_inner", "left_eye", "left_eye_outer", "right_eye_inner", "right_eye", "right_eye_outer",
        "left_ear", "right_ear", "left_mouth", "right_mouth", "left_shoulder", "right_shoulder", "left_elbow",
        "right_elbow", "left_wrist", "right_wrist", "left_pinky", "right_pinky", "left_index", "right_index",
        "left_thumb", "right_thumb", "left_hip", "right_hip", "left_knee", "right_knee", "left_ankle", "right_ankle",
        "left_heel", "right_heel", "left_foot_index", "right_foot_index",
    )
)  # fmt: skip

# shoulders, elbows, wrists, hips, knees and ankles: their peaks are the quality of a view
LIMBS = (*range(11, 17), *range(23, 29))
SIDE = 256  # pixels of a crop
CELLS = 64  # rows and columns of a heat map
# Two landmarks are not joints: the middle of the hips, and a point on the circle around it that contains the body. For an
# upright person this point lies straight above the hips.
CENTRE, RIM = 33, 34
FETCH = "download it by `python scripts/fetch_blazepose.py FILE`"


class BlazePoseOutput(NamedTuple):
    """Output of the network for one crop.

    Attributes:
        logits: (64, 64, 33) float32 heat maps before the sigmoid. Cell (i, j) lies at crop pixel (4 i - 0.5, 4 j - 0.5). The
            offset was measured: only with it the maps of mirrored crops are mirror images.
        body: (2, 2) float32, the middle of the hips and the point on the body's circle, in crop pixels.
    """

    logits: NDArray[np.float32]
    body: NDArray[np.float32]

    @property
    def heatmaps(self) -> NDArray[np.float32]:
        """(33, 64, 64) in [0, 1]."""
        return _sigmoid(self.logits.transpose(2, 0, 1))

    @property
    def peaks(self) -> NDArray[np.float32]:
        """(33,) maximum of each map, roughly the probability that it lies on the joint."""
        return _sigmoid(self.logits.max(axis=(0, 1)))


class BlazePose:
    """The network in a file `pose_landmark_full.tflite`.

    Args:
        file: MediaPipe's model file.
        threads: CPU threads.

    Attributes:
        digest: SHA-256 of the file.
    """

    name = "blazepose"
    skeleton = BLAZEPOSE

    def __init__(self, file: str | Path, threads: int = 1):
        if not Path(file).is_file():
            raise DistilPoseError(f"teacher.file={file} is not a file: {FETCH}.")
        content = Path(file).read_bytes()
        self.digest = hashlib.sha256(content).hexdigest()
        self._interpreter = _interpreter(content, file, threads)
        self._input = self._interpreter.get_input_details()[0]["index"]
        outputs = {tuple(entry["shape"].tolist()): entry["index"] for entry in self._interpreter.get_output_details()}
        try:
            self._landmarks, self._heatmaps = outputs[1, 195], outputs[1, CELLS, CELLS, 39]
        except KeyError:
            raise DistilPoseError(
                f"{file} has outputs of shape {sorted(outputs)}, expected BlazePose's landmarks (1, 195) and heat maps "
                f"(1, 64, 64, 39): {FETCH}."
            ) from None

    def __call__(self, crop: NDArray[np.uint8]) -> BlazePoseOutput:
        """Run on a (256, 256, 3) uint8 RGB crop of a person, preferably upright in it."""
        self._interpreter.set_tensor(self._input, crop[None].astype(np.float32) / 255)
        self._interpreter.invoke()
        logits = self._interpreter.get_tensor(self._heatmaps)[0, :, :, : BLAZEPOSE.num_keypoints]
        landmarks = self._interpreter.get_tensor(self._landmarks).reshape(-1, 5)
        return BlazePoseOutput(logits, landmarks[[CENTRE, RIM], :2])


def _sigmoid(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Sigmoid without overflow, as a contiguous array."""
    return 1 / (1 + np.exp(-np.ascontiguousarray(logits).clip(-80, 80)))


def _interpreter(content: bytes, file: str | Path, threads: int) -> Any:
    """LiteRT's interpreter for a model file, ready to run."""
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError as error:
        raise DistilPoseError(
            f"BlazePose needs LiteRT, which cannot be imported ({error}): pip install 'distilpose[blazepose]'."
        ) from error
    try:
        interpreter = Interpreter(model_content=content, num_threads=threads)
        interpreter.allocate_tensors()
    except (ValueError, RuntimeError) as error:
        raise DistilPoseError(f"{file} is not a model that LiteRT can run ({error}): {FETCH}.") from error
    return interpreter
