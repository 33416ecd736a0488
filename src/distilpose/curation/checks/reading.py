"""Tolerant reading of a COCO keypoint file: valid rows become arrays, invalid rows become findings."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distilpose.curation.checks.findings import Findings
from distilpose.curation.checks.rows import read_annotations, read_images
from distilpose.curation.parsing import MAX_JOINTS, is_id, read_json, skeleton_of
from distilpose.errors import DistilPoseError
from distilpose.skeleton import Skeleton


@dataclass
class KeypointSet:
    """Content of a COCO keypoint file, without the rows that cannot be read.

    Attributes:
        file: the annotation file.
        folder: folder of its images.
        skeleton: skeleton of the category.
        names: I file names of the images.
        sizes: (I, 2) width and height; NaN if missing.
        ids: (M,) int64 ids of the persons, without crowds.
        images: (M,) indices into the images.
        boxes: (M, 4) x, y, width, height; NaN if missing.
        areas: (M,) NaN if missing.
        joints: (M, K, 3) x, y, v; NaN if they cannot be read.
        counts: (M,) num_keypoints; NaN if missing.
        given_pairs: 'flip_pairs' of the category; None if it has none.
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
    given_pairs: Any = None

    @property
    def labelled(self) -> NDArray[np.bool_]:
        """(M, K) whether the joint is labelled, by the loader's rule."""
        return self.joints[..., 2] > 0


def read_set(file: Path, folder: Path, findings: Findings, category: str | None = None) -> KeypointSet | None:
    """Read a file and add the findings on its format; None if nothing else can be checked.

    Args:
        file: COCO keypoint file.
        folder: folder of its images.
        findings: the findings are added to it.
        category: name or id, if several have keypoints.
    """
    try:
        content = read_json(file)
    except DistilPoseError as error:
        findings.add("not-json", [file.name], reason=error)
        return None
    content = content if isinstance(content, dict) else {}
    missing = [key for key in ("images", "annotations", "categories") if not isinstance(content.get(key), list)]
    findings.add("not-coco", missing)
    if missing:
        return None
    entry, known = _choose_category(content["categories"], category, findings)
    if entry is None:
        return None
    try:
        skeleton = skeleton_of(entry, file)
    except DistilPoseError as error:
        findings.add("skeleton", [entry["name"]], reason=error)
        return None
    image_ids, names, sizes = read_images(content["images"], findings)
    rows = read_annotations(content["annotations"], entry["id"], known, skeleton.num_keypoints, image_ids, findings)
    data = KeypointSet(file, folder, skeleton, names, sizes, *rows)
    data.given_pairs = entry.get("flip_pairs")
    return data


def _choose_category(
    entries: list[Any], wanted: str | None, findings: Findings
) -> tuple[dict[str, Any] | None, set[int]]:
    """The category to check, None if there is none, and the ids of all categories."""
    good = [entry for entry in entries if isinstance(entry, dict) and is_id(entry.get("id")) and entry.get("name")]
    bad = [index for index, entry in enumerate(entries) if not any(entry is one for one in good)]
    findings.add("category-malformed", bad)
    ids = [entry["id"] for entry in good]
    repeated = sorted({number for number in ids if ids.count(number) > 1})
    findings.add("category-id-twice", repeated)
    matches = [entry for entry in good if entry.get("keypoints")]
    if wanted is not None:
        matches = [entry for entry in good if wanted in (str(entry["name"]), str(entry["id"]))]
    names = [entry["name"] for entry in matches]
    if len(matches) > 1:
        findings.add("several-categories", names)
        return None, set()
    if not matches or not matches[0].get("keypoints"):
        names = [entry["name"] for entry in good]
        findings.add("no-keypoints", names, count=max(1, len(names)))
        return None, set()
    joints = matches[0]["keypoints"]
    if not isinstance(joints, list) or not all(isinstance(name, str) for name in joints):
        findings.add("skeleton", names, reason="'keypoints' is not a list of names.")
        return None, set()
    if len(joints) > MAX_JOINTS:
        findings.add("joints-too-many", names, joints=len(joints), most=MAX_JOINTS)
        return None, set()
    return matches[0], set(ids)
