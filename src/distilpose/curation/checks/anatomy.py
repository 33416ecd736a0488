"""Checks of the skeleton and of bodies: missing pairs and sigmas, left and right swapped, bones too long."""

from __future__ import annotations

from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from distilpose.curation.checks.findings import Findings
from distilpose.curation.checks.reading import KeypointSet
from distilpose.evaluation.pck import joint_pair

MIN_PERSONS = 20  # persons that are needed to judge a joint
_MIN_COSINE = 0.5  # two pairs with a smaller cosine between them are not compared
_MIN_PAIR_DISTANCE = 0.1  # share of the person's size; closer pairs are not judged
_WARNING_SHARE = 0.1  # share of the judged persons from which a problem is a warning
_MAX_BONE_RATIO = 4.0  # a bone of more than this many times the usual length is reported


def check_anatomy(data: KeypointSet, findings: Findings) -> None:
    """All checks that use the names, pairs and limbs of the joints."""
    _check_skeleton(data, findings)
    if data.labelled.any():
        with np.errstate(invalid="ignore", divide="ignore"):
            _check_sides(data, findings)
            _check_facing(data, findings)
            _check_bones(data, findings)


def _check_skeleton(data: KeypointSet, findings: Findings) -> None:
    skeleton, name = data.skeleton, [data.file.name]
    findings.add("no-limbs", [] if skeleton.limbs else name)
    sided = skeleton.unpaired
    findings.add("joint-unpaired", sided)
    findings.add("no-flip-pairs", [] if skeleton.flip_pairs or sided else name)
    findings.add("sigmas-missing", [] if skeleton.sigmas else name)
    missing = set(skeleton.flip_pairs) - {(min(pair), max(pair)) for pair in data.given_pairs or ()}
    if data.given_pairs is not None:
        joints = [" / ".join(skeleton.names[joint] for joint in pair) for pair in sorted(missing)]
        named = len(skeleton.flip_pairs)
        findings.add("flip-pairs-placeholder", joints, given=named - len(missing), named=named)


def _check_sides(data: KeypointSet, findings: Findings) -> None:
    """Find pairs of joints that point in the opposite direction to the person's other pairs.

    From any viewpoint, the directions from right to left at the eyes, the shoulders and the hips are nearly the same. Arms
    and legs can cross, but not in most persons.
    """
    pairs = data.skeleton.flip_pairs
    if len(pairs) < 2:
        return
    first, second = np.array(pairs).T
    both = data.labelled[:, first] & data.labelled[:, second]
    across = np.where(both[..., None], data.joints[:, first, :2] - data.joints[:, second, :2], 0)
    length = np.linalg.norm(across, axis=2)
    both = both & (length > _MIN_PAIR_DISTANCE * _person_size(data)[:, None] / 2)
    unit = across / np.maximum(length, 1e-9)[..., None]
    swapped = _swapped_pairs(both, unit)
    names = [_pair_name(data, pair) for pair in swapped]
    findings.add("sides-swapped", names)
    trunk = [pair for pair in range(len(pairs)) if pair not in swapped and _is_trunk(data, pair)]
    turned, known = np.zeros((2, len(both)), dtype=np.bool_)
    for one, other in combinations(trunk, 2):
        cosine = (unit[:, one] * unit[:, other]).sum(1)
        sure = both[:, one] & both[:, other] & (np.abs(cosine) > _MIN_COSINE)
        known |= sure
        turned |= sure & (cosine < -0.8)
    many = known.sum() >= MIN_PERSONS and turned.sum() > _WARNING_SHARE * known.sum()
    findings.add(
        "sides-disagree", data.ids[turned], "warning" if many else None, turned=turned.sum(), known=known.sum()
    )


def _swapped_pairs(both: NDArray[np.bool_], unit: NDArray[np.float64]) -> list[int]:
    """Indices of the pairs that most other pairs contradict in most persons.

    Args:
        both: (M, P) whether both joints of a pair are labelled and not too close.
        unit: (M, P, 2) direction from the second joint to the first.
    """
    count = both.shape[1]
    against, judged = np.zeros((2, count, count))
    for one in range(count):
        cosine = np.einsum("nd,npd->np", unit[:, one], unit)
        sure = both[:, one, None] & both & (np.abs(cosine) > _MIN_COSINE)
        judged[one], against[one] = sure.sum(0), (sure & (cosine < 0)).sum(0)
    np.fill_diagonal(judged, 0)
    share = np.where(judged >= MIN_PERSONS, against / np.maximum(judged, 1), np.nan)
    swapped: list[int] = []
    # the pair that most others contradict is removed first, so that it does not count against the others
    while True:
        rest = [pair for pair in range(count) if pair not in swapped]
        votes = {pair: np.sum(share[pair, rest] > 0.5) / max(1, np.isfinite(share[pair, rest]).sum()) for pair in rest}
        worst = max(rest, key=lambda pair: (votes[pair], np.nanmean([0.0, *share[pair, rest]])), default=None)
        if worst is None or votes[worst] < 0.5 or votes[worst] == 0:
            return swapped
        swapped.append(worst)


def _check_facing(data: KeypointSet, findings: Findings) -> None:
    """Find persons whose left is the viewer's left: in a face from the front, the person's left eye is on the right."""
    eyes = joint_pair(data.skeleton, "eye") or joint_pair(data.skeleton, "ear")
    nose = next((k for k, name in enumerate(data.skeleton.names) if "nose" in name.lower()), None)
    if eyes is None or nose is None:
        where = [data.file.name] if data.skeleton.flip_pairs else []
        findings.add("sides-unknown", where)
        return
    up = np.tile([0.0, -1.0], (len(data.ids), 1))
    shoulders, hips = joint_pair(data.skeleton, "shoulder"), joint_pair(data.skeleton, "hip")
    labelled = data.labelled
    if shoulders and hips:
        torso = data.joints[:, shoulders, :2].mean(1) - data.joints[:, hips, :2].mean(1)
        up = np.where(np.all(labelled[:, [*shoulders, *hips]], axis=1, keepdims=True), torso, up)
    across = data.joints[:, eyes[0], :2] - data.joints[:, eyes[1], :2]
    turn = up[:, 0] * across[:, 1] - up[:, 1] * across[:, 0]
    wide = np.abs(turn) > _MIN_COSINE * np.linalg.norm(up, axis=1) * np.linalg.norm(across, axis=1)
    face: NDArray[np.bool_] = np.all(labelled[:, [*eyes, nose]], axis=1)
    judged = face & wide & (np.linalg.norm(across, axis=1) > 2)
    wrong = judged & (turn < 0)
    if judged.sum() >= MIN_PERSONS and wrong.sum() > _WARNING_SHARE * judged.sum():
        severity = "error" if wrong.sum() > 0.5 * judged.sum() else "warning"
        findings.add("sides-mirrored", data.ids[wrong], severity, wrong=wrong.sum(), faces=judged.sum())


def _check_bones(data: KeypointSet, findings: Findings) -> None:
    """Find bones that are much longer than usual for the person's size."""
    if not data.skeleton.limbs:
        return
    first, second = np.array(data.skeleton.limbs).T
    both = data.labelled[:, first] & data.labelled[:, second]
    length = np.linalg.norm(data.joints[:, first, :2] - data.joints[:, second, :2], axis=2)
    relative = np.where(both, length / _person_size(data)[:, None], np.nan)
    odd = np.zeros(len(both), dtype=bool)
    for values in relative.T:
        known = np.isfinite(values)
        if known.sum() >= MIN_PERSONS:
            odd |= known & (values > max(_MAX_BONE_RATIO * np.quantile(values[known], 0.75), 0.3))
    severity = "warning" if odd.sum() > 0.02 * len(odd) else "note"
    findings.add("bone-long", data.ids[odd], severity, persons=odd.sum(), times=_MAX_BONE_RATIO)


def _person_size(data: KeypointSet) -> NDArray[np.float64]:
    """(M,) square root of the area of the box, or of the extent of the labelled joints if there is no box."""
    box = np.sqrt(np.maximum(data.boxes[:, 2] * data.boxes[:, 3], 0))
    low = np.where(data.labelled[..., None], data.joints[..., :2], np.inf).min(1)
    high = np.where(data.labelled[..., None], data.joints[..., :2], -np.inf).max(1)
    extent = np.sqrt(np.maximum(high - low, 0).prod(1))
    return np.where(np.isfinite(box) & (box > 0), box, np.where(np.isfinite(extent), extent, np.nan))


def _pair_name(data: KeypointSet, pair: int) -> str:
    return " / ".join(data.skeleton.names[joint] for joint in data.skeleton.flip_pairs[pair])


def _is_trunk(data: KeypointSet, pair: int) -> bool:
    return any(part in _pair_name(data, pair).lower() for part in ("shoulder", "hip", "eye", "ear"))
