"""OKS sigmas from persons that were labelled twice, by the distance between the two labels of a joint."""

from __future__ import annotations

import logging
from collections import defaultdict
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from distilpose.data.annotations import KeypointAnnotations, load_annotations
from distilpose.data.image_sizes import is_rounded
from distilpose.errors import DistilPoseError

log = logging.getLogger(__name__)

MIN_PERSONS = 10  # persons with two labels of a joint, to estimate its sigma
_MAX_DISTANCE = 0.25  # mean squared distance divided by area, from which two labellings are of different persons


def estimate_sigmas(
    file: Path, other: Path, category: str | None = None
) -> tuple[tuple[str, ...], NDArray[np.float64], NDArray[np.int64]]:
    """The sigma of each joint, by COCO's definition: the root mean square of d / sqrt(area), with d the distance to the truth.

    The distance between two labels with independent errors is sqrt(2) times larger. Images are paired by their path, or by
    their base name if it is unique in both files. Their persons are paired one to one, by the nearest joints.

    Args:
        file: COCO keypoint file.
        other: a second labelling of the same persons.
        category: name or id, if several have keypoints.

    Returns:
        Names of the joints, (K,) sigmas (NaN if labelled twice in fewer than `MIN_PERSONS` persons), (K,) number of persons.

    Raises:
        DistilPoseError: the joints differ, or no person is in both files.
    """
    one, two = load_annotations(file, category), load_annotations(other, category)
    if one.skeleton.names != two.skeleton.names:
        raise DistilPoseError(f"{file} and {other} have different joints: label the same ones in the same order.")
    squares: list[NDArray[np.float64]] = []
    persons, twins = _by_image(one), _by_image(two)
    for name, twin_name in _same_images(one, two):
        if name in persons and twin_name in twins:
            squares.extend(_match_persons(one, persons[name], two, twins[twin_name]))
    if not squares:
        raise DistilPoseError(f"No person of {file} is also in {other}: expected two labellings of the same images.")
    table = np.array(squares)
    counts = np.isfinite(table).sum(0)
    means = np.nansum(table, axis=0) / np.maximum(counts, 1)
    return one.skeleton.names, np.where(counts >= MIN_PERSONS, np.sqrt(means / 2), np.nan), counts


def format_sigmas(names: tuple[str, ...], sigmas: NDArray[np.float64], counts: NDArray[np.int64]) -> str:
    """A line for each sigma, and an override for training if all are known."""
    lines = [
        f"{name}: {sigma:.4f} (labelled twice in {count} persons)"
        for name, sigma, count in zip(names, sigmas, counts, strict=True)
    ]
    if np.isfinite(sigmas).all() and (sigmas > 0).all():
        lines.append("data.skeleton.sigmas=[" + ",".join(f"{sigma:.4f}" for sigma in sigmas) + "]")
    else:
        lines.append(
            f"Some joints have fewer than {MIN_PERSONS} persons labelled twice, or no difference: label more persons twice."
        )
    return "\n".join(lines)


def _by_image(data: KeypointAnnotations) -> dict[str, list[int]]:
    """Persons with an area, by the file name of their image."""
    persons: dict[str, list[int]] = defaultdict(list)
    for person in np.flatnonzero(data.areas > 0).tolist():
        persons[data.images[int(data.image_ids[person])].file_name].append(person)
    return persons


def _same_images(one: KeypointAnnotations, two: KeypointAnnotations) -> list[tuple[str, str]]:
    """Pairs of names of the same image in one size: equal names, and names whose base name is unique in each file."""
    names, others = ({image.file_name for image in data.images.values()} for data in (one, two))
    bases, other_bases = _by_base_name(names), _by_base_name(others)
    unique = [base for base, same in bases.items() if len(same) == len(other_bases.get(base, [])) == 1]
    pairs = {(bases[base][0], other_bases[base][0]) for base in unique} - {(name, name) for name in names}
    sizes, other_sizes = ({image.file_name: image[1:] for image in data.images.values()} for data in (one, two))
    equal = {(name, name) for name in names & others}
    same_size = {pair for pair in pairs | equal if is_rounded(sizes[pair[0]], other_sizes[pair[1]])}
    if pairs & same_size:
        log.info(f"{len(pairs & same_size)} images are paired by their base names, as their folders differ.")
    if other := len(pairs | equal) - len(same_size):
        log.warning(f"{other} images have another size in the two files and are left out.")
    return sorted(same_size)


def _by_base_name(names: set[str]) -> dict[str, list[str]]:
    by_base: dict[str, list[str]] = defaultdict(list)
    for name in names:
        by_base[PurePosixPath(name).name].append(name)
    return by_base


def _match_persons(
    one: KeypointAnnotations, persons: list[int], two: KeypointAnnotations, twins: list[int]
) -> list[NDArray[np.float64]]:
    """(K,) squared distances divided by area, for each person of an image that was labelled twice."""
    table = np.array([[_differences(one, person, two, twin) for twin in twins] for person in persons])
    table /= one.areas[persons][:, None, None]
    shared = np.isfinite(table)
    cost = np.where(shared, table, 0).sum(2) / np.maximum(shared.sum(2), 1)
    cost = np.where(shared.any(2), np.minimum(cost, _MAX_DISTANCE), _MAX_DISTANCE)
    return [table[pair] for pair in zip(*linear_sum_assignment(cost), strict=True) if cost[pair] < _MAX_DISTANCE]


def _differences(one: KeypointAnnotations, person: int, two: KeypointAnnotations, twin: int) -> NDArray[np.float64]:
    """(K,) squared distances in pixels, NaN unless the joint is labelled in both."""
    both = one.labelled[person] & two.labelled[twin]
    square = ((one.keypoints[person].astype(np.float64) - two.keypoints[twin]) ** 2).sum(1)
    return np.where(both, square, np.nan)
