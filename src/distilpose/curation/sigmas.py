"""OKS sigmas from persons that were labelled twice: how far two people put the same joint apart."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from distilpose.data.annotations import KeypointAnnotations, load_annotations
from distilpose.errors import DistilPoseError

FEWEST = 10  # doubly labelled joints, for a figure
_FAR = 0.25  # mean squared distance per area, from which it is another person


def estimate_sigmas(
    file: Path, other: Path, category: str | None = None
) -> tuple[tuple[str, ...], NDArray[np.float64], NDArray[np.int64]]:
    """The sigma of each joint, by COCO's definition: the root mean square of d / sqrt(area), d from the true place.

    Two labels that err alike and independently differ by sqrt(2) times that. Images are paired by their name and folders,
    or by the bare name where no other image of either file has it; their persons one to one, by the nearest joints.

    Args:
        file: COCO keypoint file.
        other: the same persons, labelled by somebody else.
        category: name or id, where several have keypoints.

    Returns:
        The joints' names, (K,) sigmas (NaN where fewer than `FEWEST` were labelled twice), (K,) how often they were.

    Raises:
        DistilPoseError: the joints differ, or no person is in both.
    """
    one, two = load_annotations(file, category), load_annotations(other, category)
    if one.skeleton.names != two.skeleton.names:
        raise DistilPoseError(f"{file} and {other} have different joints: label the same ones in the same order.")
    squares: list[NDArray[np.float64]] = []
    persons, twins = _by_image(one), _by_image(two)
    for name, twin_name in _same_images(one, two):
        if name in persons and twin_name in twins:
            squares.extend(_paired(one, persons[name], two, twins[twin_name]))
    if not squares:
        raise DistilPoseError(f"No person of {file} is also in {other}: expected two labellings of the same images.")
    table = np.array(squares)
    counts = np.isfinite(table).sum(0)
    means = np.nansum(table, axis=0) / np.maximum(counts, 1)
    return one.skeleton.names, np.where(counts >= FEWEST, np.sqrt(means / 2), np.nan), counts


def tell_sigmas(names: tuple[str, ...], sigmas: NDArray[np.float64], counts: NDArray[np.int64]) -> str:
    """The figures as a table, and as the option of a training where all are known."""
    lines = [
        f"{name}: {sigma:.4f} (labelled twice in {count} persons)"
        for name, sigma, count in zip(names, sigmas, counts, strict=True)
    ]
    if np.isfinite(sigmas).all() and (sigmas > 0).all():
        lines.append("data.skeleton.sigmas=[" + ",".join(f"{sigma:.4f}" for sigma in sigmas) + "]")
    else:
        lines.append(
            f"Not every joint was labelled twice in {FEWEST} persons, with a difference: label more persons twice."
        )
    return "\n".join(lines)


def _by_image(data: KeypointAnnotations) -> dict[str, list[int]]:
    """Persons with an area, by the file name of their image."""
    found: dict[str, list[int]] = defaultdict(list)
    for person in np.flatnonzero(data.areas > 0).tolist():
        found[data.images[int(data.image_ids[person])].file_name].append(person)
    return found


def _same_images(one: KeypointAnnotations, two: KeypointAnnotations) -> list[tuple[str, str]]:
    """Names that mean the same image: equal ones, and those that alone have their bare name in each file."""
    names, others = ({image.file_name for image in data.images.values()} for data in (one, two))
    bare, other_bare = _by_bare_name(names), _by_bare_name(others)
    alone = [key for key, found in bare.items() if len(found) == len(other_bare.get(key, [])) == 1]
    return sorted({(name, name) for name in names & others} | {(bare[key][0], other_bare[key][0]) for key in alone})


def _by_bare_name(names: set[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = defaultdict(list)
    for name in names:
        found[PurePosixPath(name).name].append(name)
    return found


def _paired(
    one: KeypointAnnotations, persons: list[int], two: KeypointAnnotations, twins: list[int]
) -> list[NDArray[np.float64]]:
    """(K,) squared distances per area of each person that both have labelled on an image."""
    table = np.array([[_differences(one, person, two, twin) for twin in twins] for person in persons])
    table /= one.areas[persons][:, None, None]
    shared = np.isfinite(table)
    cost = np.where(shared, table, 0).sum(2) / np.maximum(shared.sum(2), 1)
    cost = np.where(shared.any(2), np.minimum(cost, _FAR), _FAR)
    return [table[pair] for pair in zip(*linear_sum_assignment(cost), strict=True) if cost[pair] < _FAR]


def _differences(one: KeypointAnnotations, person: int, two: KeypointAnnotations, twin: int) -> NDArray[np.float64]:
    """(K,) squared distances in pixels, NaN where not both are labelled."""
    both = one.labelled[person] & two.labelled[twin]
    square = ((one.keypoints[person].astype(np.float64) - two.keypoints[twin]) ** 2).sum(1)
    return np.where(both, square, np.nan)
