"""Checks of boxes, areas and joints against each other and against their images; all of them work on whole arrays."""

from __future__ import annotations

from collections import Counter

import numpy as np

from distilpose.curation.findings import Findings
from distilpose.curation.reading import KeypointSet

ABSURD = 1e5  # pixels; no photograph is that wide
FEW_LABELS = 20
SMALL_SET = 100
_BEYOND_BOX = 0.25  # of the box's longer side, that a joint may lie outside
_SLACK = 1.0  # pixels that tools round away at an image's edge


def check_values(data: KeypointSet, findings: Findings) -> None:
    """Everything that can be told from the file's numbers alone."""
    _check_numbers(data, findings)
    _check_boxes(data, findings)
    _check_joints(data, findings)
    _check_doubles(data, findings)
    _check_amount(data, findings)


def _check_numbers(data: KeypointSet, findings: Findings) -> None:
    seen = data.joints[..., 2]
    odd = np.isfinite(seen) & ~np.isin(seen, (0, 1, 2))
    told = "Visibilities are other than 0 (not labelled), 1 (hidden) and 2 (seen)."
    findings.add("error", "visibility", data.ids[odd.any(1)], told, "Write 0, 1 or 2; above 0 counts as labelled.")
    positions = np.where(data.labelled[..., None], data.joints[..., :2], 0)
    absurd = (np.abs(positions) > ABSURD).any((1, 2)) | (np.abs(np.nan_to_num(data.boxes)) > ABSURD).any(1)
    told = f"Boxes or joints lie more than {ABSURD:g} pixels out."
    findings.add("error", "absurd", data.ids[absurd], told, "Correct them; coordinates are pixels of the image.")
    differs = np.isfinite(data.counts) & np.isfinite(seen).all(1) & (data.counts != data.labelled.sum(1))
    told = "'num_keypoints' differs from the number of labelled joints; at 0 the person is left out of training."
    findings.add("warning", "num-keypoints", data.ids[differs], told, "Count them again, or leave it out.")


def _check_boxes(data: KeypointSet, findings: Findings) -> None:
    known = np.isfinite(data.boxes).all(1)
    x, y, width, height = data.boxes.T
    empty = known & ((width <= 0) | (height <= 0))
    findings.add(
        "warning", "box-empty", data.ids[empty], "Boxes have no size; training leaves these out.", "Draw them again."
    )
    sizes = data.sizes[data.images]
    inside = np.minimum(data.boxes[:, :2] + data.boxes[:, 2:], sizes) - np.maximum(data.boxes[:, :2], 0)
    judged = known & ~empty & np.isfinite(sizes).all(1)
    outside = judged & (inside <= 0).any(1)
    told = "Boxes lie wholly outside their image; training leaves these out."
    findings.add("error", "box-outside", data.ids[outside], told, "Correct them: x, y, width, height in pixels.")
    over = judged & ~outside & (inside < data.boxes[:, 2:] - _SLACK).any(1)
    findings.add(
        "note",
        "box-over-edge",
        data.ids[over],
        "Boxes reach over the image's edge; they are clipped.",
        "Fine as it is.",
    )
    corners = judged & ~outside & (width > x) & (height > y) & (x > 0) & (y > 0)
    mostly = over.sum() > 0.3 * max(1, judged.sum()) and (over & corners).sum() > 0.9 * over.sum()
    told = "Most boxes reach over the image's edge: they may be written as two corners."
    findings.add("error", "box-corners", data.ids[over & mostly], told, "Write x, y, width and height.")
    no_area = np.isnan(data.areas)
    told = "Persons have no 'area'; 0.53 of the box is taken."
    findings.add("note", "area-missing", data.ids[no_area], told, "Fine, unless the set has outlines.")
    findings.add(
        "warning", "area-empty", data.ids[data.areas <= 0], "Areas are 0 or less; training leaves these out.",
        "Correct them, or leave 'area' out.",
    )  # fmt: skip
    large = known & ~empty & (data.areas > 1.05 * width * height + 1)
    told = "Areas are larger than their box; OKS takes the area for the person's size."
    findings.add("warning", "area-large", data.ids[large], told, "Write square pixels of the image.")


def _check_joints(data: KeypointSet, findings: Findings) -> None:
    labelled, points = data.labelled, data.joints[..., :2]
    sizes = data.sizes[data.images][:, None]
    with np.errstate(invalid="ignore"):
        out = labelled & ((points < -_SLACK) | (points > sizes + _SLACK)).any(2)
    told = f"{int(out.sum())} labelled joints lie outside their image."
    way = "Label them 0; a network cannot see them. A wrong image size has the same effect."
    findings.add("warning", "joint-outside-image", data.ids[out.any(1)], told, way)
    zero = labelled & (points == 0).all(2)
    told = f"{int(zero.sum())} joints are labelled at (0, 0), where tools put joints that are not labelled."
    findings.add("warning", "joint-at-zero", data.ids[zero.any(1)], told, "Set v = 0 for these joints.")
    with np.errstate(invalid="ignore"):
        corner, opposite = data.boxes[:, None, :2], data.boxes[:, None, :2] + data.boxes[:, None, 2:]
        beyond = np.maximum(corner - points, points - opposite).max(2)
        far = labelled & ~out & (beyond > _BEYOND_BOX * data.boxes[:, None, 2:].max(2))
    told = f"{int(far.sum())} labelled joints lie more than a quarter of the box's size outside it, beyond the crop."
    findings.add("warning", "joint-outside-box", data.ids[far.any(1)], told, "Check these boxes and joints.")
    read = np.isfinite(data.joints).all((1, 2))
    none = read & ~labelled.any(1)
    told = "Persons have no labelled joint; training leaves them out unless data.unlabelled=true."
    findings.add("note", "person-without-joints", data.ids[none], told, "Fine, where they are too small to label.")


def _check_doubles(data: KeypointSet, findings: Findings) -> None:
    readable = np.flatnonzero(np.isfinite(data.joints).all((1, 2)) & data.labelled.any(1))
    seen: set[tuple[int, int]] = set()
    twice = []
    for person, image in zip(readable.tolist(), data.images[readable].tolist(), strict=True):
        # a hash and not the numbers: sorting a million rows takes minutes, keeping them a gigabyte
        key = (image, hash(data.joints[person].tobytes()))
        if key in seen:
            twice.append(person)
        seen.add(key)
    told = "Persons are annotated twice: the same joints on the same image."
    findings.add("warning", "annotation-double", data.ids[twice], told, "Remove all but one of each.")
    counts = Counter(data.names)
    double = [name for name, count in counts.items() if count > 1]
    told = "Files are listed as several images."
    findings.add("warning", "image-listed-twice", double, told, "List each once, with all its persons.")


def _check_amount(data: KeypointSet, findings: Findings) -> None:
    names = data.skeleton.names
    persons = int(data.labelled.any(1).sum())
    if persons == 0:
        way = "Label some, or train with data.unlabelled=true and a teacher."
        findings.add("error", "no-persons", [data.file.name], "No person has a labelled joint.", way)
        return
    told = f"Only {persons} persons have labelled joints."
    way = "Some hundred are enough to fine-tune, thousands to train from the start; label more or start from a checkpoint."
    findings.add("warning", "set-small", [data.file.name] if persons < SMALL_SET else [], told, way)
    counts = data.labelled.sum(0)
    never = [names[joint] for joint in np.flatnonzero(counts == 0)]
    findings.add("warning", "joint-never", never, "Joints are labelled in no person.", "Label them, or take them out.")
    few = (counts > 0) & (counts < max(FEW_LABELS, 0.01 * persons)) & (counts < persons / 2)
    rare = [f"{names[joint]} ({counts[joint]})" for joint in np.flatnonzero(few)]
    findings.add("warning", "joint-rare", rare, "Joints are labelled in few persons.", "Label more of them.")
    lonely = [data.names[place] for place in np.setdiff1d(np.arange(len(data.names)), data.images)]
    told = "Images have no person; training does not show them."
    findings.add("note", "image-without-person", lonely, told, "Fine, or label them.")
