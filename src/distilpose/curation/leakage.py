"""Images that are there twice, within a file or in two splits that should have none in common."""

from __future__ import annotations

from collections import defaultdict
from itertools import combinations, pairwise
from pathlib import PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distilpose.curation.findings import Findings
from distilpose.curation.images import Fingerprints
from distilpose.curation.reading import KeypointSet

NEAR = 3  # bits of 64 in which two pictures that look alike may differ
_MOST = 1000  # hashes that one is compared with; more share half their bits only in sets of one still scene
_EDGES = np.linspace(0, 64, 2 * NEAR + 1).astype(int).tolist()
_PARTS = [sum(1 << bit for bit in range(low, high)) for low, high in pairwise(_EDGES)]
# of six parts, hashes that differ in at most three bits share three
_MASKS = [np.uint64(sum(parts)) for parts in combinations(_PARTS, NEAR)]


def check_within(prints: Fingerprints, findings: Findings) -> None:
    """Images of one file that are the same or look it."""
    groups: dict[bytes, list[str]] = defaultdict(list)
    for name, digest in zip(prints.names, prints.digests, strict=True):
        groups[digest].append(name)
    same = [f"{names[0]} = {other}" for names in groups.values() for other in names[1:]]
    told = "Image files are the same under several names."
    findings.add("warning", "image-double", same, told, "Keep one of each, with all its persons.")
    singles = [place for place, name in enumerate(prints.names) if groups[prints.digests[place]][0] == name]
    names, hashes = [prints.names[place] for place in singles], prints.hashes[singles]
    twins, cut = look_alikes(hashes, hashes)
    earlier = (twins >= 0) & (twins < np.arange(len(twins)))
    alike = np.flatnonzero(earlier)
    told = "Images look nearly the same as one further up in the file."
    way = "Fine within one split; of a video, keep fewer frames."
    findings.add("note", "image-alike", [f"{names[twins[place]]} ~ {names[place]}" for place in alike], told, way)
    _tell_unsure([names[place] for place in np.flatnonzero(cut & ~earlier)], findings)


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
        twins, cut = look_alikes(prints.hashes, other_prints.hashes)
        rest = [place for place, (digest, _) in enumerate(pairs) if digest not in digests]
        alike = [f"{prints.names[twins[two]]} ~ {pairs[two][1]}" for two in rest if twins[two] >= 0]
        told = "Images of the second split look nearly the same as one of the first."
        findings.add("warning", "leakage-alike", alike, told, "Put all frames of a scene into one split.")
        _tell_unsure([pairs[two][1] for two in rest if cut[two] and twins[two] < 0], findings)
        bases = {PurePosixPath(image).name for image in data.names}
        shared = sorted({PurePosixPath(image).name for image in other.names} & bases)
        known = {PurePosixPath(twin).name for digest, twin in pairs if digest in digests}
        told = "File names are the same in both splits, though the files differ or could not be read."
        findings.add("note", "names-shared", [x for x in shared if x not in known], told, "Make sure they differ.")


def _tell_unsure(names: list[str], findings: Findings) -> None:
    told = f"Images were compared with {_MOST} that are half alike, not with all: look-alikes may be missed."
    findings.add("note", "alike-unsure", names, told, "Of a still scene, keep fewer frames, all in one split.")


def look_alikes(hashes: NDArray[np.uint64], others: NDArray[np.uint64]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Which picture each of the others looks like: their hashes differ in at most `NEAR` bits; 0 is like nothing.

    Equal hashes are looked at once, and only those that share half their bits are compared, each with `_MOST` at most.

    Returns:
        (M,) the first place in `hashes` found to be near each of the `others`, -1 where there is none; (M,) whether an
        earlier one may have been missed.
    """
    asked, back = np.unique(others, return_inverse=True)
    known, first = np.unique(hashes, return_index=True)
    in_order = np.argsort(first)
    known, first = known[in_order], first[in_order]
    none = len(hashes)
    best, cut = np.full(len(asked), none), np.zeros(len(asked), dtype=np.bool_)
    for mask in _MASKS:
        order = np.argsort(known & mask, kind="stable")  # stable: of equal keys the first in the list comes first
        ranked = (known & mask)[order]
        at = np.searchsorted(ranked, asked & mask, "left")
        end = np.searchsorted(ranked, asked & mask, "right")
        short = (end - at > _MOST) & (asked != 0)
        end = np.minimum(end, at + _MOST)
        rows = np.flatnonzero((at < end) & (asked != 0))
        while len(rows):
            twins = order[at[rows]]
            near = (_bits(known[twins] ^ asked[rows]) <= NEAR) & (known[twins] != 0)
            best[rows[near]] = np.minimum(best[rows[near]], first[twins[near]])
            short[rows[near]] = False  # those further down in the list need not be looked at
            at[rows] += 1
            rows = rows[~near & (at[rows] < end[rows])]
        cut |= short
    return np.where(best == none, -1, best)[back], cut[back]


def _bits(values: NDArray[np.uint64]) -> NDArray[np.integer[Any]]:
    """How many bits are set in each."""
    if hasattr(np, "bitwise_count"):  # from numpy 2.0
        return np.bitwise_count(values)
    return np.unpackbits(values.view(np.uint8).reshape(len(values), 8), axis=1).sum(1)
