"""Measure jitter and error of predictions on clips, raw and smoothed: `python scripts/measure_smoothing.py clip …`.

`scripts/draw_clip.py NAME.avi NAME.json` draws a clip NAME. `predict source=NAME.avi boxes=NAME.json output=NAME` predicts it
without smoothing. --tune measures a grid of settings.
"""

from __future__ import annotations

import argparse
import json
import sys
from itertools import product
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from distilpose.errors import DistilPoseError
from distilpose.inference.smoothing import OneEuroFilter

MIN_CUTOFFS = (0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
BETAS = (0.0, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0)


class Steadiness(NamedTuple):
    """Metrics of one person's joints in a video.

    Attributes:
        jitter: mean length of the acceleration of the predictions minus that of the truth, pixels per frame squared.
        acceleration_error: mean length of the difference of both accelerations, pixels per frame squared.
        error: mean distance to the truth, pixels.
        pck: share of joints within 0.2 of the torso length.
    """

    jitter: float
    acceleration_error: float
    error: float
    pck: float


def steadiness(predicted: NDArray, truth: NDArray, torso: float) -> Steadiness:
    """Compare predictions with the truth.

    Args:
        predicted: (T, K, 2) pixels, at least 3 frames.
        truth: (T, K, 2) pixels.
        torso: mean length of the torso over all frames, in pixels.
    """
    distance = np.linalg.norm(predicted - truth, axis=-1)
    predicted, truth = (np.diff(positions, n=2, axis=0) for positions in (predicted, truth))  # accelerations
    jitter = np.linalg.norm(predicted, axis=-1).mean() - np.linalg.norm(truth, axis=-1).mean()
    difference = np.linalg.norm(predicted - truth, axis=-1).mean()
    return Steadiness(float(jitter), float(difference), float(distance.mean()), float((distance <= 0.2 * torso).mean()))


class Clip:
    """True and predicted joints of one person in a video.

    Args:
        truth: annotation file with one person in each frame.
        results: results.json of the predict command for the same frames.
    """

    def __init__(self, truth: Path, results: Path) -> None:
        content = json.loads(truth.read_text())
        persons = {person["image_id"]: person for person in content["annotations"]}
        rows = sorted(json.loads(results.read_text()), key=lambda row: row["frame"])
        if [row["frame"] for row in rows] != sorted(persons):
            raise DistilPoseError(f"{results} must have one person in each of the {len(persons)} frames of {truth}.")
        names = content["categories"][0]["keypoints"]
        table = np.array([row["keypoints"] for row in rows]).reshape(len(rows), len(names), 3)
        self.predicted, self.scores = table[..., :2], table[..., 2]
        self.truth = np.array([persons[row["frame"]]["keypoints"] for row in rows]).reshape(table.shape)[..., :2]
        self.times = [row["time"] for row in rows]
        self.sizes = [float(np.sqrt(row["box"][2] * row["box"][3])) for row in rows]
        left, right = names.index("left_shoulder"), names.index("right_hip")
        self.torso = float(np.linalg.norm(self.truth[:, left] - self.truth[:, right], axis=-1).mean())

    def measure(self, min_cutoff: float | None = None, beta: float = 0.0, threshold: float = 0.2) -> Steadiness:
        """Measure the predicted joints, or with `min_cutoff` the smoothed ones."""
        joints = self.predicted
        if min_cutoff is not None:
            smooth = OneEuroFilter(min_cutoff, beta, threshold=threshold)
            frames = zip(self.times, self.predicted, self.scores, self.sizes, strict=True)
            joints = np.stack([smooth(*frame) for frame in frames])
        return steadiness(joints, self.truth, self.torso)


def main(arguments: list[str] | None = None) -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description="Measure jitter and error of clips' predictions, raw and smoothed.")
    parser.add_argument("clips", nargs="+", type=Path, help="NAME of NAME.json and NAME/results.json")
    parser.add_argument("--tune", action="store_true", help="measure a grid of settings, and print the best")
    parser.add_argument("--min-cutoff", type=float, default=OneEuroFilter().min_cutoff)
    parser.add_argument("--beta", type=float, default=OneEuroFilter().beta)
    args = parser.parse_args(arguments)
    try:
        clips = [Clip(name.with_name(f"{name.name}.json"), name / "results.json") for name in args.clips]
    except FileNotFoundError as error:
        sys.exit(
            f"error: {error.filename} does not exist: clip NAME needs its truth in NAME.json and the output of predict in NAME."
        )
    except (DistilPoseError, OSError) as error:
        sys.exit(f"error: {error}")
    print("| clip | smoothing | jitter (px/frame^2) | acceleration error | mean error (px) | PCK@0.2 |")
    print("| --- | --- | --- | --- | --- | --- |")
    raw = [clip.measure() for clip in clips]
    if not args.tune:
        for name, clip, before in zip(args.clips, clips, raw, strict=True):
            print_row(name.name, "none", before)
            after = clip.measure(args.min_cutoff, args.beta)
            print_row(name.name, f"{args.min_cutoff:g} Hz, beta {args.beta:g}", after)
        return
    rows = {"none": mean(raw)}
    for min_cutoff, beta in product(MIN_CUTOFFS, BETAS):
        rows[f"{min_cutoff:g} Hz, beta {beta:g}"] = mean([clip.measure(min_cutoff, beta) for clip in clips])
    for name, result in rows.items():
        print_row("mean", name, result)
    allowed = (rows["none"].error + min(result.error for result in rows.values())) / 2
    jitter = {name: abs(result.jitter) for name, result in rows.items() if result.error <= allowed}
    best = sorted(jitter, key=lambda name: jitter[name])[:3]
    print(f"Least jitter first, among settings that keep half of the best gain in error: {'; '.join(best)}")


def mean(results: list[Steadiness]) -> Steadiness:
    """The mean of the results of several clips."""
    return Steadiness(*np.mean(results, axis=0).tolist())


def print_row(clip: str, smoothing: str, result: Steadiness) -> None:
    """Print a row of the table."""
    figures = f"{result.jitter:.3f} | {result.acceleration_error:.3f} | {result.error:.3f} | {100 * result.pck:.1f}"
    print(f"| {clip} | {smoothing} | {figures} |")


if __name__ == "__main__":
    main()
