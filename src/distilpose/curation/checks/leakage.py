"""Duplicate and similar images, within a file and between two splits."""

from __future__ import annotations

from collections import defaultdict
from itertools import combinations, pairwise
from pathlib import PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distilpose.curation.checks.findings import Findings
from distilpose.curation.checks.images import Fingerprints
from distilpose.curation.checks.reading import KeypointSet

NEAR = 3  # images look alike if at most this many of the 64 bits of their hashes differ
# hashes to compare one hash with; only sets of a still scene have more that share half their bits
_MAX_COMPARED = 1000
_EDGES = np.linspace(0, 64, 2 * NEAR + 1).astype(int).tolist()
_PARTS = [sum(1 << bit for bit in range(low, high)) for low, high in pairwise(_EDGES)]
# hashes that differ in at most three bits are equal in at least three of six parts
_MASKS = [np.uint64(sum(parts)) for parts in combinations(_PARTS, NEAR)]


def check_within(prints: Fingerprints, findings: Findings) -> None:
    """Find images of one file that are duplicates or look alike."""
    groups: dict[bytes, list[str]] = defaultdict(list)
    for name, digest in zip(prints.names, prints.digests, strict=True):
        groups[digest].append(name)
    duplicates = [f"{names[0]} = {other}" for names in groups.values() for other in names[1:]]
    findings.add("image-duplicate", duplicates)
    singles = [index for index, name in enumerate(prints.names) if groups[prints.digests[index]][0] == name]
    names, hashes = [prints.names[index] for index in singles], prints.hashes[singles]
    twins, incomplete = look_alikes(hashes, hashes)
    has_twin = (twins >= 0) & (twins < np.arange(len(twins)))
    alike = [f"{names[twins[index]]} ~ {names[index]}" for index in np.flatnonzero(has_twin)]
    findings.add("image-alike", alike)
    findings.add(
        "alike-incomplete", [names[index] for index in np.flatnonzero(incomplete & ~has_twin)], most=_MAX_COMPARED
    )


def check_between(sets: list[tuple[str, KeypointSet, Fingerprints]], findings: Findings) -> None:
    """Find images that two splits have in common, and joints that differ.

    Args:
        sets: name, set and fingerprints of each split.
        findings: the findings are added to it.
    """
    for (name, data, prints), (other_name, other, other_prints) in combinations(sets, 2):
        findings.split = f"{name} and {other_name}"
        if data.skeleton.names != other.skeleton.names:
            differ = sorted(set(data.skeleton.names) ^ set(other.skeleton.names)) or ["order"]
            findings.add("joints-differ", differ)
        first = dict(zip(prints.digests, prints.names, strict=True))
        second = list(zip(other_prints.digests, other_prints.names, strict=True))
        same = [f"{first[digest]} = {twin}" for digest, twin in second if digest in first]
        findings.add("leakage", same)
        twins, incomplete = look_alikes(prints.hashes, other_prints.hashes)
        rest = [index for index, (digest, _) in enumerate(second) if digest not in first]
        alike = [f"{prints.names[twins[index]]} ~ {second[index][1]}" for index in rest if twins[index] >= 0]
        findings.add("leakage-alike", alike)
        unsure = [second[index][1] for index in rest if incomplete[index] and twins[index] < 0]
        findings.add("alike-incomplete", unsure, most=_MAX_COMPARED)
        bases = {PurePosixPath(image).name for image in data.names}
        known = {PurePosixPath(twin).name for digest, twin in second if digest in first}
        shared = sorted({PurePosixPath(image).name for image in other.names} & bases - known)
        findings.add("names-shared", shared)


def look_alikes(hashes: NDArray[np.uint64], others: NDArray[np.uint64]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Find the first image that each of the others looks like: their hashes differ in at most `NEAR` bits.

    A hash of 0 looks like no other. Only hashes that share half their bits are compared, each with at most 1,000 others.

    Args:
        hashes: (N,) hashes of the images.
        others: (M,) hashes of the other images.

    Returns:
        (M,) for each of `others` the first index in `hashes` that it looks like, -1 if there is none; (M,) whether an
        earlier one may have been missed.
    """
    queries, back = np.unique(others, return_inverse=True)
    known, first = np.unique(hashes, return_index=True)
    in_order = np.argsort(first)
    known, first = known[in_order], first[in_order]
    none = len(hashes)
    best, incomplete = np.full(len(queries), none), np.zeros(len(queries), dtype=np.bool_)
    for mask in _MASKS:
        order = np.argsort(known & mask, kind="stable")  # stable: equal keys stay in the order of the list
        ranked = (known & mask)[order]
        at = np.searchsorted(ranked, queries & mask, "left")
        end = np.searchsorted(ranked, queries & mask, "right")
        short = (end - at > _MAX_COMPARED) & (queries != 0)
        end = np.minimum(end, at + _MAX_COMPARED)
        rows = np.flatnonzero((at < end) & (queries != 0))
        while len(rows):
            twins = order[at[rows]]
            near = (_count_bits(known[twins] ^ queries[rows]) <= NEAR) & (known[twins] != 0)
            best[rows[near]] = np.minimum(best[rows[near]], first[twins[near]])
            short[rows[near]] = False  # the remaining candidates come later in the list
            at[rows] += 1
            rows = rows[~near & (at[rows] < end[rows])]
        incomplete |= short
    return np.where(best == none, -1, best)[back], incomplete[back]


def _count_bits(values: NDArray[np.uint64]) -> NDArray[np.integer[Any]]:
    """Number of bits that are set in each value."""
    if hasattr(np, "bitwise_count"):  # since numpy 2.0
        return np.bitwise_count(values)
    return np.unpackbits(values.view(np.uint8).reshape(len(values), 8), axis=1).sum(1)
