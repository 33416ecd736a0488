"""Checks of the skeleton and of how people are built: missing pairs and sigmas, left and right changed, odd bones."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from distilpose.curation.findings import Findings
from distilpose.curation.reading import KeypointSet
from distilpose.skeleton import side_of

ENOUGH = 20  # persons, for a judgement on a joint
_ALONG = 0.5  # cosine from which two pairs point the same way
_WIDE = 0.1  # of the person's size, from which left and right are told apart
_SOME = 0.1
_LONG = 4.0  # times the usual, from which a bone is odd


def check_anatomy(data: KeypointSet, findings: Findings) -> None:
    """Everything that rests on the joints' names, pairs and limbs."""
    _check_skeleton(data, findings)
    if data.labelled.any():
        _check_sides(data, findings)
        _check_facing(data, findings)
        _check_bones(data, findings)


def _check_skeleton(data: KeypointSet, findings: Findings) -> None:
    skeleton, name = data.skeleton, [data.file.name]
    findings.add(
        "note", "no-limbs", [] if skeleton.limbs else name, "The category has no 'skeleton', so no limbs are drawn.",
        "List pairs of joints, counted from 1.",
    )  # fmt: skip
    paired = {joint for pair in skeleton.flip_pairs for joint in pair}
    sided = [joint for k, joint in enumerate(skeleton.names) if side_of(joint) != "centre" and k not in paired]
    told = "Joints are left or right by their name but have no partner: mirrored views would teach a wrong side."
    way = "Name the partner alike, or give 'flip_pairs' (pairs counted from 0) in the category or data.skeleton.flip_pairs."
    findings.add("warning", "joint-unpaired", sided, told, way)
    told = "No left-right pairs: right for an object without sides, wrong for a body."
    findings.add("note", "no-flip-pairs", [] if skeleton.flip_pairs or sided else name, told, way)
    told = "No OKS sigmas are known for these joints: only PCK can be told, no AP."
    way = "Measure them by `dataset sigmas` from persons labelled twice, or give OKS_sigmas in the category."
    findings.add("note", "sigmas-missing", [] if skeleton.sigmas else name, told, way)


def _check_sides(data: KeypointSet, findings: Findings) -> None:
    """Pairs of joints that point the other way than the person's other pairs.

    On a body seen from anywhere, right to left is nearly the same direction at the eyes, the shoulders and the hips; arms and
    legs may cross, but not in most persons.
    """
    pairs = data.skeleton.flip_pairs
    if len(pairs) < 2:
        return
    first, second = np.array(pairs).T
    both = data.labelled[:, first] & data.labelled[:, second]
    across = np.where(both[..., None], data.joints[:, first, :2] - data.joints[:, second, :2], 0)
    length = np.linalg.norm(across, axis=2)
    both = both & (length > _WIDE * _person_size(data)[:, None] / 2)
    unit = across / np.maximum(length, 1e-9)[..., None]
    against, judged = np.zeros((2, len(pairs), len(pairs)))
    for one in range(len(pairs)):
        cosine = np.einsum("nd,npd->np", unit[:, one], unit)
        sure = both[:, one, None] & both & (np.abs(cosine) > _ALONG)
        judged[one], against[one] = sure.sum(0), (sure & (cosine < 0)).sum(0)
    np.fill_diagonal(judged, 0)
    share = np.where(judged >= ENOUGH, against / np.maximum(judged, 1), np.nan)
    suspects: list[int] = []
    # the pair that most others contradict goes first, and is no witness against the rest
    while True:
        rest = [pair for pair in range(len(pairs)) if pair not in suspects]
        votes = {pair: np.sum(share[pair, rest] > 0.5) / max(1, np.isfinite(share[pair, rest]).sum()) for pair in rest}
        worst = max(rest, key=lambda pair: (votes[pair], np.nanmean([0.0, *share[pair, rest]])), default=None)
        if worst is None or votes[worst] < 0.5 or votes[worst] == 0:
            break
        suspects.append(worst)
    names = [_pair_name(data, pair) for pair in suspects]
    told = "Left and right look changed in most persons: the pair points the other way than the person's other pairs."
    findings.add("error", "sides-swapped", names, told, "Look by `dataset browse`; then change them or their names.")
    trunk = [pair for pair in range(len(pairs)) if pair not in suspects and _is_trunk(data, pair)]
    turned: NDArray[np.bool_] = np.zeros(len(both), dtype=np.bool_)
    known: NDArray[np.bool_] = np.zeros(len(both), dtype=np.bool_)
    for index, one in enumerate(trunk):
        for other in trunk[index + 1 :]:
            cosine = (unit[:, one] * unit[:, other]).sum(1)
            sure = both[:, one] & both[:, other] & (np.abs(cosine) > _ALONG)
            known |= sure
            turned |= sure & (cosine < -0.8)
    told = f"Shoulders, hips and face disagree on left and right in {turned.sum()} of {known.sum()} persons."
    heavy = known.sum() >= ENOUGH and turned.sum() > _SOME * known.sum()
    way = "Look at these persons; a twisted body may be right, a tenth of all are not."
    findings.add("warning" if heavy else "note", "sides-disagree", data.ids[turned], told, way)


def _check_facing(data: KeypointSet, findings: Findings) -> None:
    """Whether left is the person's left: of a face seen from the front, it is to the right of the picture."""
    eyes = _named_pair(data, "eye") or _named_pair(data, "ear")
    nose = next((k for k, name in enumerate(data.skeleton.names) if "nose" in name.lower()), None)
    if eyes is None or nose is None:
        if data.skeleton.flip_pairs:
            told = "Without a nose and eyes, nothing tells whether left is the person's left or the viewer's."
            findings.add("note", "sides-untold", [data.file.name], told, "Look at a few persons by `dataset browse`.")
        return
    up = np.tile([0.0, -1.0], (len(data.ids), 1))
    shoulders, hips = _named_pair(data, "shoulder"), _named_pair(data, "hip")
    seen = data.labelled
    if shoulders and hips:
        torso = data.joints[:, shoulders, :2].mean(1) - data.joints[:, hips, :2].mean(1)
        up = np.where(np.all(seen[:, [*shoulders, *hips]], axis=1, keepdims=True), torso, up)
    across = data.joints[:, eyes[0], :2] - data.joints[:, eyes[1], :2]
    turn = up[:, 0] * across[:, 1] - up[:, 1] * across[:, 0]
    wide = np.abs(turn) > _ALONG * np.linalg.norm(up, axis=1) * np.linalg.norm(across, axis=1)
    face: NDArray[np.bool_] = np.all(seen[:, [*eyes, nose]], axis=1)
    judged = face & wide & (np.linalg.norm(across, axis=1) > 2)
    wrong = judged & (turn < 0)
    if judged.sum() >= ENOUGH and wrong.sum() > _SOME * judged.sum():
        most = wrong.sum() > 0.5 * judged.sum()
        told = f"In {wrong.sum()} of {judged.sum()} faces the left eye is where the person's right one would be."
        way = "Left means the person's left, not the viewer's: change the names of left and right in these persons."
        findings.add("error" if most else "warning", "sides-mirrored", data.ids[wrong], told, way)


def _check_bones(data: KeypointSet, findings: Findings) -> None:
    """Bones much longer than usual for the person's size."""
    if not data.skeleton.limbs:
        return
    first, second = np.array(data.skeleton.limbs).T
    both = data.labelled[:, first] & data.labelled[:, second]
    length = np.linalg.norm(data.joints[:, first, :2] - data.joints[:, second, :2], axis=2)
    with np.errstate(invalid="ignore", divide="ignore"):
        relative = np.where(both, length / _person_size(data)[:, None], np.nan)
    odd = np.zeros(len(both), dtype=bool)
    for bone in range(len(first)):
        values = relative[:, bone]
        there = np.isfinite(values)
        if there.sum() >= ENOUGH:
            usual = np.quantile(values[there], 0.75)
            odd |= there & (values > max(_LONG * usual, 0.3))
    told = f"{odd.sum()} persons have a bone more than {_LONG:g} times as long as is usual for their size."
    heavy = odd.sum() > 0.02 * len(odd)
    findings.add(
        "warning" if heavy else "note",
        "bone-long",
        data.ids[odd],
        told,
        "Look for joints of another person or mistyped.",
    )


def _person_size(data: KeypointSet) -> NDArray[np.float64]:
    """(M,) square root of the box, or of the labelled joints' extent where there is no box."""
    box = np.sqrt(np.maximum(data.boxes[:, 2] * data.boxes[:, 3], 0))
    low = np.where(data.labelled[..., None], data.joints[..., :2], np.inf).min(1)
    high = np.where(data.labelled[..., None], data.joints[..., :2], -np.inf).max(1)
    with np.errstate(invalid="ignore"):
        extent = np.sqrt(np.maximum(high - low, 0).prod(1))
    return np.where(np.isfinite(box) & (box > 0), box, np.where(np.isfinite(extent), extent, np.nan))


def _named_pair(data: KeypointSet, part: str) -> list[int] | None:
    """Left and right joint of that part of the body, from their names."""
    found = {side_of(name): k for k, name in enumerate(data.skeleton.names) if part in name.lower()}
    return [found["left"], found["right"]] if {"left", "right"} <= found.keys() else None


def _pair_name(data: KeypointSet, pair: int) -> str:
    return " / ".join(data.skeleton.names[joint] for joint in data.skeleton.flip_pairs[pair])


def _is_trunk(data: KeypointSet, pair: int) -> bool:
    return any(part in _pair_name(data, pair).lower() for part in ("shoulder", "hip", "eye", "ear"))
