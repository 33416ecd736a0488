"""An exported file against the model in PyTorch, on the same crops."""

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
from distilpose.exporting.graph import ExportedPose, output_names
from distilpose.exporting.onnx_file import network_input
from distilpose.models.model import PoseModel

BATCHES = (1, 3, 8)  # each is run, so that a graph which took one of them for a constant is found out
# largest difference allowed: of keypoints as a share of the crop's longer side, and of scores and a teacher's heat maps
# as a share of the largest value PyTorch gives. Measured over all models: see docs/export.md
TOLERANCES = {"float32": (0.01 / 256, 1e-3), "float16": (0.5 / 256, 2e-2)}
# int8: the mean difference of keypoints as a share of the crop's longer side
INT8_TOLERANCE = 0.03


class Difference(NamedTuple):
    """How far a file is from PyTorch.

    Attributes:
        pixels_largest: of keypoints, in crop pixels; of a teacher, over the joints whose peak is decided, in int8 over all.
        pixels_mean: likewise.
        scores_largest: of scores.
        scores_mean: likewise.
        heatmaps_largest: of a teacher's heat maps, as a share of the largest value PyTorch gives; None of a student.
        joints: how many were compared.
        undecided: how many of a teacher's joints are left out of the figures in pixels, because decoding magnifies even
            the rounding of their maps.
        crops: what was compared on, in words.
        pck: PCK of PyTorch and of the file, where the crops are annotated with the model's joints; else None.
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
    """The outputs of both on all crops, in batches of 1, 3, 8, 8, …; of fewer than 12 crops some are shown again.

    Args:
        model: in eval mode on the CPU, not folded.
        run: the exported file, with sigmas or heat maps.
        crops: M persons.
        normalise: as the file was exported.
        precision: of the file.
    """
    count = max(len(crops.images), sum(BATCHES))
    images = np.resize(crops.images, (count, *crops.images.shape[1:]))
    about = {"mean": model.mean, "std": model.std}
    reference = ExportedPose(model, normalise=False, extra=True).eval()
    ours: list[list[NDArray]] = []
    theirs: list[list[NDArray]] = []
    for piece in track(_pieces(count), "comparing with PyTorch", transient=True):
        with torch.no_grad():
            plain = network_input(images[piece], {**about, "normalise": False})
            ours.append([one.numpy() for one in reference(torch.from_numpy(plain))])
        found = run(network_input(images[piece], {**about, "normalise": normalise}))
        for name, one, other in zip(output_names(model.kind, True), ours[-1], found, strict=False):
            if one.shape != other.shape:
                raise DistilPoseError(
                    f"The exported file gives {name} of shape {other.shape} for a batch of {len(plain)}, PyTorch "
                    f"{one.shape}: nothing was kept."
                )
        theirs.append(found)
    expected, given = ([np.concatenate(part) for part in zip(*parts, strict=True)] for parts in (ours, theirs))
    return _difference(model, expected, given, crops, precision)


def check(difference: Difference, precision: str, model: PoseModel) -> None:
    """Refuse a file that differs by more than rounding, or, for int8, by more than a model that still works would."""
    side, largest = max(model.input_size), difference.pixels_largest
    if difference.undecided == difference.joints:
        raise DistilPoseError(
            f"None of the {difference.joints} joints compared has a decided peak in the teacher's heat maps, so nothing is "
            "known of the keypoints of the exported file and it was not kept: give images of persons, or a trained teacher."
        )
    if precision == "int8":
        bad = not difference.pixels_mean <= INT8_TOLERANCE * side
        told = f"by {difference.pixels_mean:.3g} crop pixels on average, {INT8_TOLERANCE * side:.3g} are allowed"
        way = "give more or likelier calibration images, or export with precision=float16"
    else:
        pixels, share = TOLERANCES[precision]
        bad = not (largest <= pixels * side and difference.scores_largest <= share)
        bad = bad or not (difference.heatmaps_largest is None or difference.heatmaps_largest <= share)
        told = (
            f"by {largest:.3g} crop pixels and {difference.scores_largest:.3g} of a score, "
            f"{pixels * side:.3g} and {share:.3g} are allowed"
        )
        way = "try another format" if precision == "float32" else "export with precision=float32"
    if bad:
        raise DistilPoseError(f"The exported file differs from PyTorch {told}, so it was not kept: {way}.")


def _difference(
    model: PoseModel, expected: list[NDArray], given: list[NDArray], crops: Crops, precision: str
) -> Difference:
    size = np.array([model.input_size[1], model.input_size[0]])
    finite = all(np.isfinite(one).all() for one in given)
    shifts = np.linalg.norm((expected[0] - given[0]) * size, axis=-1)
    scores = np.abs(expected[1] - given[1])
    decided, heatmaps = np.ones_like(shifts, dtype=bool), None
    if model.kind == "teacher" and len(given) > 2:
        apart = np.abs(expected[2] - given[2])
        heatmaps = float(apart.max() / np.abs(expected[2]).max())
        if precision in TOLERANCES:  # int8 damages the maps themselves, and nothing else would judge them
            decided = _decided(expected[2], given[2], size, TOLERANCES[precision][0] * max(model.input_size) / 2)
    share = scores / max(1.0, float(np.abs(expected[1]).max()))
    counted = shifts[decided] if decided.any() else np.zeros(1)
    found = Difference(
        float(counted.max()), float(counted.mean()), float(share.max()), float(share.mean()), heatmaps,
        shifts.size, int((~decided).sum()), crops.told, _pck(model, expected[0], given[0], crops),
    )  # fmt: skip
    return found if finite else found._replace(pixels_largest=np.inf, pixels_mean=np.inf)


def _decided(expected: NDArray, given: NDArray, size: NDArray, allowed: float) -> NDArray[np.bool_]:
    """(N, K): whether PyTorch decodes both maps to places within so many crop pixels of each other.

    Where it does not, though the maps agree, the highest cell has an equal or no curvature to find the peak by, as maps of
    an untrained teacher often have, and pixels say nothing of the export.
    """
    places = [decode_heatmaps(torch.from_numpy(maps))[0].numpy() * size for maps in (expected, given)]
    return np.linalg.norm(places[0] - places[1], axis=-1) <= allowed


def _pck(model: PoseModel, expected: NDArray, given: NDArray, crops: Crops) -> tuple[float, float] | None:
    if crops.keypoints is None or crops.names != model.skeleton.names:
        return None
    target, labelled, boxes = (torch.as_tensor(part) for part in (crops.keypoints, crops.labelled, crops.boxes))
    size = torch.tensor([model.input_size[1], model.input_size[0]])
    places = (torch.from_numpy(found[: len(target)]) * size for found in (expected, given))
    before, after = (pck(place, target, labelled, boxes, model.skeleton).value for place in places)
    return before, after


def _pieces(count: int) -> list[slice]:
    """Slices of 1, 3, 8, 8, … up to the count."""
    ends = [1, 4, *range(12, count, 8), count]
    return [slice(start, end) for start, end in zip([0, *ends], ends, strict=False) if end > start]
