"""Images that are there twice, within a file or in two splits that should have none in common."""

from __future__ import annotations

from collections import defaultdict
from itertools import combinations
from pathlib import PurePosixPath

import numpy as np
from numpy.typing import NDArray

from distilpose.curation.findings import Findings
from distilpose.curation.images import Fingerprints
from distilpose.curation.reading import KeypointSet

NEAR = 3  # bits of 64 in which two pictures that look alike may differ
_COMMON = 50  # pictures with the same hash, from which it says nothing (blank frames)


def check_within(prints: Fingerprints, findings: Findings) -> None:
    """Images of one file that are the same or look it."""
    groups: dict[bytes, list[str]] = defaultdict(list)
    for name, digest in zip(prints.names, prints.digests, strict=True):
        groups[digest].append(name)
    same = [f"{names[0]} = {other}" for names in groups.values() for other in names[1:]]
    told = "Image files are the same under several names."
    findings.add("warning", "image-double", same, told, "Keep one of each, with all its persons.")
    alike = [
        f"{prints.names[one]} ~ {prints.names[other]}"
        for one, other in near_pairs(prints.hashes, prints.hashes)
        if one < other and prints.digests[one] != prints.digests[other]
    ]
    told = "Images look nearly the same."
    findings.add("note", "image-alike", alike, told, "Fine within one split; of a video, keep fewer frames.")


def check_between(sets: list[tuple[str, KeypointSet, Fingerprints]], findings: Findings) -> None:
    """What two splits have in common.

    Args:
        sets: name, set and fingerprints of each split.
        findings: gets what is found.
    """
    for (name, data, prints), (other_name, other, other_prints) in combinations(sets, 2):
        findings.split = f"{name} and {other_name}"
        if data.skeleton.names != other.skeleton.names:
            told = "The joints of two splits differ in name or order."
            differ = sorted(set(data.skeleton.names) ^ set(other.skeleton.names)) or ["order"]
            findings.add("error", "joints-differ", differ, told, "Write both with the same 'keypoints'.")
        digests = dict(zip(prints.digests, prints.names, strict=True))
        pairs = list(zip(other_prints.digests, other_prints.names, strict=True))
        same = [f"{digests[digest]} = {twin}" for digest, twin in pairs if digest in digests]
        told = "The same images are in both splits, so the score of the one is no test of the other."
        findings.add("error", "leakage", same, told, "Remove them from one of the two.")
        alike = [
            f"{prints.names[one]} ~ {other_prints.names[two]}"
            for one, two in near_pairs(prints.hashes, other_prints.hashes)
            if other_prints.digests[two] not in digests
        ]
        told = "Images in both splits look nearly the same."
        findings.add("warning", "leakage-alike", alike, told, "Put all frames of a scene into one split.")
        bases = {PurePosixPath(image).name for image in data.names}
        shared = sorted({PurePosixPath(image).name for image in other.names} & bases)
        known = {PurePosixPath(twin).name for digest, twin in pairs if digest in digests}
        told = "File names are the same in both splits, though the files differ or could not be read."
        findings.add("note", "names-shared", [x for x in shared if x not in known], told, "Make sure they differ.")


def near_pairs(hashes: NDArray[np.uint64], others: NDArray[np.uint64]) -> list[tuple[int, int]]:
    """Places of hashes that differ in at most `NEAR` bits; hash 0 is like nothing.

    Two such hashes agree in one of four 16-bit parts, so only those that share a part are compared.
    """
    found: set[tuple[int, int]] = set()
    for part in range(NEAR + 1):
        shift = np.uint64(16 * part)
        buckets: dict[int, list[int]] = defaultdict(list)
        for place, key in enumerate(((others >> shift) & np.uint64(0xFFFF)).tolist()):
            if others[place]:
                buckets[key].append(place)
        for place, key in enumerate(((hashes >> shift) & np.uint64(0xFFFF)).tolist()):
            near = buckets.get(key)
            if near and hashes[place]:
                bits = (
                    np.bitwise_count(others[near] ^ hashes[place])
                    if _HAS_COUNT
                    else _bits(others[near] ^ hashes[place])
                )
                close = np.flatnonzero(bits <= NEAR)
                if len(close) <= _COMMON:
                    found.update((place, near[index]) for index in close)
    return sorted(found)


_HAS_COUNT = hasattr(np, "bitwise_count")  # from numpy 2.0


def _bits(values: NDArray[np.uint64]) -> NDArray[np.int64]:
    return np.unpackbits(values.view(np.uint8).reshape(len(values), 8), axis=1).sum(1)
