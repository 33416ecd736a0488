"""Checks of boxes, areas and joints against each other and against the image size."""

from __future__ import annotations

from collections import Counter
from pathlib import PurePosixPath

import numpy as np

from distilpose.curation.checks.findings import Findings
from distilpose.curation.checks.reading import KeypointSet
from distilpose.data.units import SMALL_AREA, corner_boxes, is_placeholder
from distilpose.evaluation.coco_ap import MAX_PERSONS
from distilpose.evaluation.pck import torso_diagonals

ABSURD = 1e5  # pixels; no photograph is so wide
FEW_LABELS = 20
SMALL_SET = 100
_BEYOND_BOX = 0.25  # share of the box's longer side that a joint may lie outside the box
_SLACK = 1.0  # pixels that a coordinate may lie outside the image because of rounding


def check_values(data: KeypointSet, findings: Findings) -> None:
    """All checks that need only the annotation file, not the images."""
    with np.errstate(invalid="ignore"):
        _check_numbers(data, findings)
        _check_boxes(data, findings)
        _check_joints(data, findings)
    _check_duplicates(data, findings)
    _check_metrics(data, findings)
    _check_amount(data, findings)


def _check_numbers(data: KeypointSet, findings: Findings) -> None:
    visibility = data.joints[..., 2]
    odd = np.isfinite(visibility) & ~np.isin(visibility, (0, 1, 2))
    findings.add("visibility", data.ids[odd.any(1)])
    positions = np.where(data.labelled[..., None], data.joints[..., :2], 0)
    absurd = (np.abs(positions) > ABSURD).any((1, 2)) | (np.abs(np.nan_to_num(data.boxes)) > ABSURD).any(1)
    findings.add("absurd", data.ids[absurd], limit=ABSURD)
    differs = np.isfinite(data.counts) & np.isfinite(visibility).all(1) & (data.counts != data.labelled.sum(1))
    findings.add("num-keypoints", data.ids[differs])


def _check_boxes(data: KeypointSet, findings: Findings) -> None:
    known = np.isfinite(data.boxes).all(1)
    width, height = data.boxes[:, 2:].T
    empty = known & ((width <= 0) | (height <= 0))
    findings.add("box-empty", data.ids[empty])
    sizes = data.sizes[data.images]
    inside = np.minimum(data.boxes[:, :2] + data.boxes[:, 2:], sizes) - np.maximum(data.boxes[:, :2], 0)
    judged = known & ~empty & np.isfinite(sizes).all(1)
    outside = judged & (inside <= 0).any(1)
    findings.add("box-outside", data.ids[outside])
    over = judged & ~outside & (inside < data.boxes[:, 2:] - _SLACK).any(1)
    findings.add("box-over-edge", data.ids[over])
    corners = corner_boxes(data.boxes[judged], sizes[judged])
    findings.add("box-corners", data.ids[judged][corners])
    findings.add("area-missing", data.ids[np.isnan(data.areas)])
    findings.add("area-empty", data.ids[data.areas <= 0])
    small = known & (data.areas > 0) & (data.areas < SMALL_AREA * width * height)
    findings.add("area-small", data.ids[small] if small.sum() > len(small) / 2 else [], share=SMALL_AREA)
    large = known & ~empty & (data.areas > 1.05 * width * height + 1)
    findings.add("area-large", data.ids[large])


def _check_joints(data: KeypointSet, findings: Findings) -> None:
    labelled, points = data.labelled, data.joints[..., :2]
    sizes = data.sizes[data.images][:, None]
    out = labelled & ((points < -_SLACK) | (points > sizes + _SLACK)).any(2)
    findings.add("joint-outside-image", data.ids[out.any(1)], joints=out.sum())
    zero = labelled & is_placeholder(points)
    findings.add("joint-at-zero", data.ids[zero.any(1)], joints=zero.sum())
    corner, opposite = data.boxes[:, None, :2], data.boxes[:, None, :2] + data.boxes[:, None, 2:]
    beyond = np.maximum(corner - points, points - opposite).max(2)
    far = labelled & ~out & (beyond > _BEYOND_BOX * data.boxes[:, None, 2:].max(2))
    findings.add("joint-outside-box", data.ids[far.any(1)], joints=far.sum())
    unlabelled = np.isfinite(data.joints).all((1, 2)) & ~labelled.any(1)
    findings.add("person-without-joints", data.ids[unlabelled])


def _check_duplicates(data: KeypointSet, findings: Findings) -> None:
    readable = np.flatnonzero(np.isfinite(data.joints).all((1, 2)) & data.labelled.any(1))
    seen: set[tuple[int, int]] = set()
    duplicates = []
    for person, image in zip(readable.tolist(), data.images[readable].tolist(), strict=True):
        # compares hashes: sorting a million rows would take minutes, and keeping them a gigabyte
        key = (image, hash(data.joints[person].tobytes()))
        if key in seen:
            duplicates.append(person)
        seen.add(key)
    findings.add("annotation-duplicate", data.ids[duplicates])
    by_base = Counter(PurePosixPath(name).name for name in set(data.names))
    findings.add("base-names-shared", [base for base, count in by_base.items() if count > 1])
    repeated = [name for name, count in Counter(data.names).items() if count > 1]
    findings.add("image-listed-twice", repeated)


def _check_metrics(data: KeypointSet, findings: Findings) -> None:
    """What the metrics of a validation leave out, or other tools count wrongly."""
    counted = np.isfinite(data.joints).all((1, 2)) & data.labelled.any(1)
    findings.add("annotation-id-zero", data.ids[counted & (data.ids == 0)])
    images, persons = np.unique(data.images[counted], return_counts=True)
    crowded = [
        f"{data.names[image]} ({count})" for image, count in zip(images, persons, strict=True) if count > MAX_PERSONS
    ]
    findings.add("image-crowded", crowded, most=MAX_PERSONS)
    diagonals = torso_diagonals(data.skeleton)
    if diagonals is not None and counted.any():
        torso = np.any([data.labelled[:, one] & data.labelled[:, other] for one, other in diagonals], axis=0)
        without, total = data.ids[counted & ~torso], int(counted.sum())
        severity = "warning" if len(without) == total else "note"
        findings.add("torso-unlabelled", without, severity, persons=len(without), total=total)


def _check_amount(data: KeypointSet, findings: Findings) -> None:
    names = data.skeleton.names
    persons = int(data.labelled.any(1).sum())
    if persons == 0:
        findings.add("no-persons", [data.file.name])
        return
    findings.add("set-small", [data.file.name] if persons < SMALL_SET else [], persons=persons)
    counts = data.labelled.sum(0)
    never = [names[joint] for joint in np.flatnonzero(counts == 0)]
    findings.add("joint-never", never)
    few = (counts > 0) & (counts < max(FEW_LABELS, 0.01 * persons)) & (counts < persons / 2)
    rare = [f"{names[joint]} ({counts[joint]})" for joint in np.flatnonzero(few)]
    findings.add("joint-rare", rare)
    empty = [data.names[index] for index in np.setdiff1d(np.arange(len(data.names)), data.images)]
    findings.add("image-without-person", empty)
