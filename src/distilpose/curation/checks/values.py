"""Checks of boxes, areas and joints against each other and against their images, on whole arrays."""

from __future__ import annotations

from collections import Counter

import numpy as np

from distilpose.curation.checks.findings import Findings
from distilpose.curation.checks.reading import KeypointSet

ABSURD = 1e5  # pixels; no photograph is that wide
FEW_LABELS = 20
SMALL_SET = 100
_BEYOND_BOX = 0.25  # of the box's longer side, that a joint may lie outside
_SLACK = 1.0  # pixels that tools round away at an image's edge


def check_values(data: KeypointSet, findings: Findings) -> None:
    """Everything that the numbers of the file tell without its images."""
    with np.errstate(invalid="ignore"):
        _check_numbers(data, findings)
        _check_boxes(data, findings)
        _check_joints(data, findings)
    _check_duplicates(data, findings)
    _check_amount(data, findings)


def _check_numbers(data: KeypointSet, findings: Findings) -> None:
    visibility = data.joints[..., 2]
    odd = np.isfinite(visibility) & ~np.isin(visibility, (0, 1, 2))
    message = "Visibilities are other than 0 (not labelled), 1 (hidden) and 2 (visible)."
    findings.add("error", "visibility", data.ids[odd.any(1)], message, "Write 0, 1 or 2; above 0 counts as labelled.")
    positions = np.where(data.labelled[..., None], data.joints[..., :2], 0)
    absurd = (np.abs(positions) > ABSURD).any((1, 2)) | (np.abs(np.nan_to_num(data.boxes)) > ABSURD).any(1)
    message = f"Boxes or joints lie more than {ABSURD:g} pixels out."
    findings.add("error", "absurd", data.ids[absurd], message, "Correct them; coordinates are pixels of the image.")
    differs = np.isfinite(data.counts) & np.isfinite(visibility).all(1) & (data.counts != data.labelled.sum(1))
    message = "'num_keypoints' differs from the number of labelled joints; training skips persons that have 0."
    findings.add("warning", "num-keypoints", data.ids[differs], message, "Count them again, or leave it out.")


def _check_boxes(data: KeypointSet, findings: Findings) -> None:
    known = np.isfinite(data.boxes).all(1)
    x, y, width, height = data.boxes.T
    empty = known & ((width <= 0) | (height <= 0))
    message = "Boxes have no size; training skips these persons."
    findings.add("warning", "box-empty", data.ids[empty], message, "Draw them again.")
    sizes = data.sizes[data.images]
    inside = np.minimum(data.boxes[:, :2] + data.boxes[:, 2:], sizes) - np.maximum(data.boxes[:, :2], 0)
    judged = known & ~empty & np.isfinite(sizes).all(1)
    outside = judged & (inside <= 0).any(1)
    message = "Boxes lie wholly outside their image; training skips these persons."
    findings.add("error", "box-outside", data.ids[outside], message, "Correct them: x, y, width, height in pixels.")
    over = judged & ~outside & (inside < data.boxes[:, 2:] - _SLACK).any(1)
    message = "Boxes reach over the image's edge; they are clipped."
    findings.add("note", "box-over-edge", data.ids[over], message, "Fine as it is.")
    corners = judged & ~outside & (width > x) & (height > y) & (x > 0) & (y > 0)
    mostly = over.sum() > 0.3 * max(1, judged.sum()) and (over & corners).sum() > 0.9 * over.sum()
    message = "Most boxes reach over the image's edge: they may be written as two corners."
    findings.add("error", "box-corners", data.ids[over & mostly], message, "Write x, y, width and height.")
    message = "Persons have no 'area'; 0.53 of the box is taken."
    findings.add("note", "area-missing", data.ids[np.isnan(data.areas)], message, "Fine, unless the set has outlines.")
    message = "Areas are 0 or less; training skips these persons."
    findings.add("warning", "area-empty", data.ids[data.areas <= 0], message, "Correct them, or leave 'area' out.")
    large = known & ~empty & (data.areas > 1.05 * width * height + 1)
    message = "Areas are larger than their box; OKS takes the area for the person's size."
    findings.add("warning", "area-large", data.ids[large], message, "Write square pixels of the image.")


def _check_joints(data: KeypointSet, findings: Findings) -> None:
    labelled, points = data.labelled, data.joints[..., :2]
    sizes = data.sizes[data.images][:, None]
    out = labelled & ((points < -_SLACK) | (points > sizes + _SLACK)).any(2)
    message = f"{int(out.sum())} labelled joints lie outside their image."
    advice = "Label them 0; a network cannot see them. A wrong image size has the same effect."
    findings.add("warning", "joint-outside-image", data.ids[out.any(1)], message, advice)
    zero = labelled & (points == 0).all(2)
    message = f"{int(zero.sum())} joints are labelled at (0, 0), where tools put joints that are not labelled."
    findings.add("warning", "joint-at-zero", data.ids[zero.any(1)], message, "Set v = 0 for these joints.")
    corner, opposite = data.boxes[:, None, :2], data.boxes[:, None, :2] + data.boxes[:, None, 2:]
    beyond = np.maximum(corner - points, points - opposite).max(2)
    far = labelled & ~out & (beyond > _BEYOND_BOX * data.boxes[:, None, 2:].max(2))
    message = f"{int(far.sum())} labelled joints lie more than a quarter of the box's size outside it, beyond the crop."
    findings.add("warning", "joint-outside-box", data.ids[far.any(1)], message, "Check these boxes and joints.")
    unlabelled = np.isfinite(data.joints).all((1, 2)) & ~labelled.any(1)
    message = "Persons have no labelled joint; training skips them unless data.unlabelled=true."
    findings.add("note", "person-without-joints", data.ids[unlabelled], message, "Fine if they are too small to label.")


def _check_duplicates(data: KeypointSet, findings: Findings) -> None:
    readable = np.flatnonzero(np.isfinite(data.joints).all((1, 2)) & data.labelled.any(1))
    seen: set[tuple[int, int]] = set()
    duplicates = []
    for person, image in zip(readable.tolist(), data.images[readable].tolist(), strict=True):
        # a hash and not the numbers: sorting a million rows takes minutes, keeping them a gigabyte
        key = (image, hash(data.joints[person].tobytes()))
        if key in seen:
            duplicates.append(person)
        seen.add(key)
    message = "Persons are annotated twice: the same joints on the same image."
    findings.add("warning", "annotation-double", data.ids[duplicates], message, "Keep one of each.")
    repeated = [name for name, count in Counter(data.names).items() if count > 1]
    message = "Files are listed as several images."
    findings.add("warning", "image-listed-twice", repeated, message, "List each once, with all its persons.")


def _check_amount(data: KeypointSet, findings: Findings) -> None:
    names = data.skeleton.names
    persons = int(data.labelled.any(1).sum())
    if persons == 0:
        advice = "Label some, or train with data.unlabelled=true and a teacher."
        findings.add("error", "no-persons", [data.file.name], "No person has a labelled joint.", advice)
        return
    message = f"Only {persons} persons have labelled joints."
    advice = (
        "Some hundred are enough to fine-tune, thousands to train from scratch; label more or start from a checkpoint."
    )
    findings.add("warning", "set-small", [data.file.name] if persons < SMALL_SET else [], message, advice)
    counts = data.labelled.sum(0)
    never = [names[joint] for joint in np.flatnonzero(counts == 0)]
    findings.add("warning", "joint-never", never, "Joints are labelled in no person.", "Label them, or remove them.")
    few = (counts > 0) & (counts < max(FEW_LABELS, 0.01 * persons)) & (counts < persons / 2)
    rare = [f"{names[joint]} ({counts[joint]})" for joint in np.flatnonzero(few)]
    findings.add("warning", "joint-rare", rare, "Joints are labelled in few persons.", "Label more of them.")
    empty = [data.names[index] for index in np.setdiff1d(np.arange(len(data.names)), data.images)]
    findings.add(
        "note", "image-without-person", empty, "Images have no person; training skips them.", "Fine, or label them."
    )
