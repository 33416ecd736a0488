"""OKS sigmas from persons that were labelled twice: how far two people put the same joint apart."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from distilpose.data.annotations import KeypointAnnotations, load_annotations
from distilpose.errors import DistilPoseError

FEWEST = 10  # doubly labelled joints, for a figure


def estimate_sigmas(
    file: Path, other: Path, category: str | None = None
) -> tuple[tuple[str, ...], NDArray[np.float64], NDArray[np.int64]]:
    """The sigma of each joint, by COCO's definition: the root mean square of d / sqrt(area), d from the true place.

    Two labels that err alike and independently differ by sqrt(2) times that. Persons are paired on images of one name, by
    the nearest joints.

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
    by_image: dict[str, list[int]] = {}
    for person, image in enumerate(two.image_ids.tolist()):
        by_image.setdefault(_name(two, image), []).append(person)
    squares = []
    for person, image in enumerate(one.image_ids.tolist()):
        near = [_differences(one, person, two, twin) for twin in by_image.get(_name(one, image), [])]
        near = [row for row in near if np.isfinite(row).any()]
        if near and one.areas[person] > 0:
            best = min(near, key=lambda row: float(np.nanmean(row)))
            if np.nanmean(best) < one.areas[person] / 4:  # farther apart it is another person
                squares.append(best / one.areas[person])
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


def _name(data: KeypointAnnotations, image: int) -> str:
    return PurePosixPath(data.images[image].file_name).name


def _differences(one: KeypointAnnotations, person: int, two: KeypointAnnotations, twin: int) -> NDArray[np.float64]:
    """(K,) squared distances in pixels, NaN where not both are labelled."""
    both = one.labelled[person] & two.labelled[twin]
    square = ((one.keypoints[person].astype(np.float64) - two.keypoints[twin]) ** 2).sum(1)
    return np.where(both, square, np.nan)
