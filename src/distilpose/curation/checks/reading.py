"""Tolerant reading of a COCO keypoint file: what can be read becomes arrays, what cannot becomes findings."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distilpose.curation.checks.findings import Findings
from distilpose.curation.checks.rows import read_annotations, read_images
from distilpose.curation.parsing import MOST_JOINTS, is_id, read_json, skeleton_of
from distilpose.errors import DistilPoseError
from distilpose.skeleton import Skeleton

_FORMAT = "Write it in COCO keypoint format (docs/data.md), or convert it by `python -m distilpose.dataset convert`."


@dataclass
class KeypointSet:
    """Content of a file, as far as it can be read.

    Attributes:
        file: the annotation file.
        folder: of its images.
        skeleton: of the category.
        names: I file names of the images.
        sizes: (I, 2) width and height; NaN if missing.
        ids: (M,) int64 ids of the persons that are no crowd.
        images: (M,) indices into the images.
        boxes: (M, 4) x, y, width, height; NaN if missing.
        areas: (M,) NaN if missing.
        joints: (M, K, 3) x, y, v; NaN if they cannot be read.
        counts: (M,) num_keypoints; NaN if missing.
    """

    file: Path
    folder: Path
    skeleton: Skeleton
    names: list[str]
    sizes: NDArray[np.float64]
    ids: NDArray[np.int64]
    images: NDArray[np.int64]
    boxes: NDArray[np.float64]
    areas: NDArray[np.float64]
    joints: NDArray[np.float64]
    counts: NDArray[np.float64]

    @property
    def labelled(self) -> NDArray[np.bool_]:
        """(M, K) whether the joint is labelled, by the loader's rule."""
        return self.joints[..., 2] > 0


def read_set(file: Path, folder: Path, findings: Findings, category: str | None = None) -> KeypointSet | None:
    """Read a file and add what is wrong with its form; None if nothing can be checked further.

    Args:
        file: COCO keypoint file.
        folder: of its images.
        findings: gets what is wrong.
        category: name or id, if several have keypoints.
    """
    try:
        content = read_json(file)
    except DistilPoseError as error:
        findings.add("error", "not-json", [file.name], str(error), "Download or write it again.")
        return None
    if not isinstance(content, dict):
        findings.add("error", "not-coco", [file.name], f"The file holds a {type(content).__name__}.", _FORMAT)
        return None
    missing = [key for key in ("images", "annotations", "categories") if not isinstance(content.get(key), list)]
    findings.add("error", "not-coco", missing, "Lists of the file are missing.", _FORMAT)
    if missing:
        return None
    entry, known = _choose_category(content["categories"], category, findings)
    if entry is None:
        return None
    try:
        skeleton = skeleton_of(entry, file)
    except DistilPoseError as error:
        advice = "Correct the category: names in 'keypoints', pairs counted from 1 in 'skeleton'."
        findings.add("error", "skeleton", [entry["name"]], str(error), advice)
        return None
    image_ids, names, sizes = read_images(content["images"], findings)
    rows = read_annotations(content["annotations"], entry["id"], known, skeleton.num_keypoints, image_ids, findings)
    return KeypointSet(file, folder, skeleton, names, sizes, *rows)


def _choose_category(
    entries: list[Any], wanted: str | None, findings: Findings
) -> tuple[dict[str, Any] | None, set[int]]:
    """The category to check, None if there is none, and the ids of all categories."""
    good = [entry for entry in entries if isinstance(entry, dict) and is_id(entry.get("id")) and entry.get("name")]
    bad = [index for index, entry in enumerate(entries) if not any(entry is one for one in good)]
    advice = "Give every category a whole number as 'id' and a 'name'."
    findings.add("error", "category-malformed", bad, "Categories lack 'id' or 'name', by their index.", advice)
    ids = [entry["id"] for entry in good]
    repeated = sorted({number for number in ids if ids.count(number) > 1})
    findings.add("error", "category-id-twice", repeated, "Category ids are not unique.", "Give each its own id.")
    matches = [entry for entry in good if entry.get("keypoints")]
    if wanted is not None:
        matches = [entry for entry in good if wanted in (str(entry["name"]), str(entry["id"]))]
    names = [entry["name"] for entry in matches]
    if len(matches) > 1:
        findings.add("error", "several-categories", names, "Several categories have joints.", "Choose by --category.")
        return None, set()
    if not matches or not matches[0].get("keypoints"):
        message = "No category lists 'keypoints'." if wanted is None else f"Category {wanted!r} lists no 'keypoints'."
        names = [entry["name"] for entry in good]
        findings.add("error", "no-keypoints", names, message, "List the joints' names there.", max(1, len(names)))
        return None, set()
    joints = matches[0]["keypoints"]
    if not isinstance(joints, list) or not all(isinstance(name, str) for name in joints):
        findings.add("error", "skeleton", names, "'keypoints' is no list of names.", "Write a list of names.")
        return None, set()
    if len(joints) > MOST_JOINTS:
        message = f"The category has {len(joints)} joints, more than {MOST_JOINTS}."
        findings.add("error", "joints-too-many", names, message, "List the joints of one person, each once.")
        return None, set()
    return matches[0], set(ids)
