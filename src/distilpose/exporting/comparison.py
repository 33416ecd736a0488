"""Comparison of an exported file with the model in PyTorch, on the same crops."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import track

from distilpose.data.codec import decode_heatmaps
from distilpose.errors import DistilPoseError
from distilpose.evaluation.pck import pck
from distilpose.exporting.crops import Crops
from distilpose.exporting.formats import Run
from distilpose.exporting.graph import ExportedPose
from distilpose.exporting.onnx_file import network_input
from distilpose.models.model import PoseModel

BATCHES = (1, 3, 8)  # several sizes, because the batch size could be a constant in the graph
# allowed differences: keypoints as a fraction of the crop's longer side; scores and a teacher's heat maps as a fraction of
# PyTorch's largest value. They were measured over all models: see docs/export.md
TOLERANCES = {"float32": (0.01 / 256, 1e-3), "float16": (0.5 / 256, 2e-2)}
# int8: mean difference of keypoints as a fraction of the crop's longer side
INT8_TOLERANCE = 0.03


class Difference(NamedTuple):
    """Difference between an exported file and PyTorch.

    Attributes:
        pixels_largest: largest difference of keypoints in crop pixels; for a teacher, over the joints whose peak is
            unambiguous (int8: over all joints).
        pixels_mean: mean difference of keypoints.
        scores_largest: largest difference of scores.
        scores_mean: mean difference of scores.
        heatmaps_largest: largest difference of a teacher's heat maps, as a fraction of PyTorch's largest value; None for a
            student.
        joints: number of joints compared.
        undecided: number of a teacher's joints without a clear peak. They are excluded from the figures in pixels, because
            decoding magnifies even rounding of their maps.
        crops: description of the crops.
        pck: PCK of PyTorch and of the file if the crops are annotated with the model's joints, else None.
    """

    pixels_largest: float
    pixels_mean: float
    scores_largest: float
    scores_mean: float
    heatmaps_largest: float | None
    joints: int
    undecided: int
    crops: str
    pck: tuple[float, float] | None


def compare(model: PoseModel, run: Run, crops: Crops, normalise: bool, precision: str) -> Difference:
    """Compare a file with its model on all crops, in batches of 1, 3, 8, 8, …; fewer than 12 crops are repeated.

    Args:
        model: in eval mode on the CPU, not folded.
        run: the exported file.
        crops: M persons.
        normalise: as the file was exported.
        precision: precision of the file.
    """
    count = max(len(crops.images), sum(BATCHES))
    images = np.resize(crops.images, (count, *crops.images.shape[1:]))
    about = {"mean": model.mean, "std": model.std}
    reference = ExportedPose(model, normalise=False, extra=True).eval()
    expected_parts: list[list[NDArray]] = []
    exported_parts: list[list[NDArray]] = []
    for piece in track(_pieces(count), "comparing with PyTorch", transient=True):
        with torch.no_grad():
            batch = network_input(images[piece], {**about, "normalise": False})
            expected = [output.numpy() for output in reference(torch.from_numpy(batch))]
        exported = run(network_input(images[piece], {**about, "normalise": normalise}))
        expected_parts.append(expected)
        exported_parts.append(exported)
    expected, exported = (
        [np.concatenate(part) for part in zip(*parts, strict=True)] for parts in (expected_parts, exported_parts)
    )
    return _difference(model, expected, exported, crops, precision)


def check_tolerance(difference: Difference, precision: str, model: PoseModel) -> None:
    """Check that a file differs from PyTorch by no more than its precision allows.

    Raises:
        DistilPoseError: it differs by more, or no joint could be compared.
    """
    side, largest = max(model.input_size), difference.pixels_largest
    if difference.undecided == difference.joints:
        raise DistilPoseError(
            f"None of the {difference.joints} joints compared has an unambiguous peak in the teacher's heat maps, so the "
            "exported file cannot be checked and was not kept: give images=FOLDER of persons, or a trained teacher."
        )
    if precision == "int8":
        good = difference.pixels_mean <= INT8_TOLERANCE * side
        measured = f"by {difference.pixels_mean:.3g} crop pixels on average, {INT8_TOLERANCE * side:.3g} is allowed"
        way = "give more or better calibration.images, or export with precision=float16"
    else:
        pixels, fraction = TOLERANCES[precision]
        good = largest <= pixels * side and difference.scores_largest <= fraction
        good = good and (difference.heatmaps_largest is None or difference.heatmaps_largest <= fraction)
        measured = (
            f"by {largest:.3g} crop pixels and {difference.scores_largest:.3g} of a score, "
            f"{pixels * side:.3g} and {fraction:.3g} are allowed"
        )
        way = "try another format" if precision == "float32" else "export with precision=float32"
    if not good:
        raise DistilPoseError(f"The exported file differs from PyTorch {measured}, so it was not kept: {way}.")


def _difference(
    model: PoseModel, expected: list[NDArray], exported: list[NDArray], crops: Crops, precision: str
) -> Difference:
    size = np.array([model.input_size[1], model.input_size[0]])
    shifts = np.linalg.norm((expected[0] - exported[0]) * size, axis=-1)
    scores = np.abs(expected[1] - exported[1])
    decided, heatmaps = np.ones_like(shifts, dtype=bool), None
    if model.kind == "teacher" and len(exported) > 2:
        heatmaps = float(np.abs(expected[2] - exported[2]).max() / np.abs(expected[2]).max())
        if precision in TOLERANCES:  # int8 changes the maps themselves, and only the keypoints measure that
            decided = _has_clear_peak(
                expected[2], exported[2], size, TOLERANCES[precision][0] * max(model.input_size) / 2
            )
    relative = scores / max(1.0, float(np.abs(expected[1]).max()))
    compared = shifts[decided] if decided.any() else np.zeros(1)
    finite = all(np.isfinite(output).all() for output in exported)
    return Difference(
        pixels_largest=float(compared.max()) if finite else np.inf,
        pixels_mean=float(compared.mean()) if finite else np.inf,
        scores_largest=float(relative.max()),
        scores_mean=float(relative.mean()),
        heatmaps_largest=heatmaps,
        joints=shifts.size,
        undecided=int((~decided).sum()),
        crops=crops.description,
        pck=_pck(model, expected[0], exported[0], crops),
    )


def _has_clear_peak(expected: NDArray, exported: NDArray, size: NDArray, allowed: float) -> NDArray[np.bool_]:
    """(N, K): whether PyTorch decodes both maps to positions at most `allowed` crop pixels apart.

    If the maps agree but the positions do not, two cells are equally high or the peak has no curvature. This is common with
    untrained teachers. The distance in pixels then says nothing about the export.
    """
    positions = [decode_heatmaps(torch.from_numpy(maps))[0].numpy() * size for maps in (expected, exported)]
    return np.linalg.norm(positions[0] - positions[1], axis=-1) <= allowed


def _pck(model: PoseModel, expected: NDArray, exported: NDArray, crops: Crops) -> tuple[float, float] | None:
    if crops.keypoints is None or crops.names != model.skeleton.names:
        return None
    target, labelled, boxes = (torch.as_tensor(part) for part in (crops.keypoints, crops.labelled, crops.boxes))
    size = torch.tensor([model.input_size[1], model.input_size[0]])
    positions = (torch.from_numpy(output[: len(target)]) * size for output in (expected, exported))
    before, after = (pck(keypoints, target, labelled, boxes, model.skeleton).value for keypoints in positions)
    return before, after


def _pieces(count: int) -> list[slice]:
    """Slices of 1, 3, 8, 8, … up to the count."""
    ends = [1, 4, *range(12, count, 8), count]
    return [slice(start, end) for start, end in zip([0, *ends], ends, strict=False) if end > start]
