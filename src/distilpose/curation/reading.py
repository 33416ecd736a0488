"""A COCO keypoint file read without trusting it: what can be read becomes arrays, what cannot becomes findings."""

from __future__ import annotations

import contextlib
import json
from array import array
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distilpose.curation.findings import Findings
from distilpose.curation.rows import is_id, read_annotations, read_images
from distilpose.errors import DistilPoseError
from distilpose.skeleton import Skeleton

MOST_JOINTS = 1000  # a person of whole-body sets has 133; a small file of many asks for gigabytes
FORMAT = "write it in COCO keypoint format (docs/data.md), or convert it by `python -m distilpose.dataset convert`"


@dataclass
class KeypointSet:
    """What a file says, as far as it can be read.

    Attributes:
        file: the annotation file.
        folder: of its images.
        skeleton: the category's joints.
        given: fields of the category that were there.
        image_ids: (I,) int64.
        names: I file names.
        sizes: (I, 2) width and height; NaN where not told.
        ids: (M,) int64 ids of the persons that are no crowd.
        images: (M,) places in the image list.
        boxes: (M, 4) x, y, width, height; NaN where there is none.
        areas: (M,) NaN where there is none.
        joints: (M, K, 3) x, y, v; NaN where they cannot be read.
        counts: (M,) num_keypoints; NaN where it is not told.
    """

    file: Path
    folder: Path
    skeleton: Skeleton
    given: frozenset[str]
    image_ids: NDArray[np.int64]
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
    """Read a file and add what is wrong with its form; None where nothing can be checked further.

    Args:
        file: COCO keypoint file.
        folder: of its images.
        findings: gets what is wrong.
        category: name or id, where several have keypoints.
    """
    content = _content(file, findings)
    if content is None:
        return None
    missing = [key for key in ("images", "annotations", "categories") if not isinstance(content.get(key), list)]
    findings.add("error", "not-coco", missing, "Lists of the file are missing.", FORMAT + ".")
    if missing:
        return None
    chosen = _category(content["categories"], category, findings)
    if chosen is None:
        return None
    number, skeleton, given, known = chosen
    image_ids, names, sizes = read_images(content["images"], findings)
    rows = read_annotations(content["annotations"], number, known, skeleton.num_keypoints, image_ids, findings)
    return KeypointSet(file, folder, skeleton, given, image_ids, names, sizes, *rows)


def compact(entry: dict[str, Any]) -> dict[str, Any]:
    """A JSON object with its keypoints packed: a million persons then take a gigabyte and not three."""
    entry.pop("segmentation", None)
    values = entry.get("keypoints")
    if isinstance(values, list) and values:
        with contextlib.suppress(TypeError, OverflowError):  # names of a category, or a fault that is told later
            entry["keypoints"] = array("d", values)
    return entry


def _content(file: Path, findings: Findings) -> dict[str, Any] | None:
    try:
        with open(file, encoding="utf-8-sig") as stream:
            content = json.loads(stream.read(), object_hook=compact)
    except FileNotFoundError:
        raise DistilPoseError(f"Annotation file {file} does not exist: give the path of one.") from None
    except RecursionError:
        findings.add("error", "not-json", [file.name], "The file is nested too deeply to be read.", FORMAT + ".")
        return None
    except ValueError as error:  # also bytes that are no text
        told = f"The file is not JSON ({' '.join(str(error).split())[:120]})."
        findings.add("error", "not-json", [file.name], told, "Download or write it again.")
        return None
    if not isinstance(content, dict):
        findings.add("error", "not-coco", [file.name], f"The file holds a {type(content).__name__}.", FORMAT + ".")
        return None
    return content


def _category(
    entries: list[Any], wanted: str | None, findings: Findings
) -> tuple[int, Skeleton, frozenset[str], set[int]] | None:
    """Id, skeleton and given fields of the category, and the ids of all categories."""
    good = [entry for entry in entries if isinstance(entry, dict) and is_id(entry.get("id")) and entry.get("name")]
    bad = [index for index, entry in enumerate(entries) if not any(entry is one for one in good)]
    way = "Give every category a whole number as 'id' and a 'name'."
    findings.add("error", "category-malformed", bad, "Categories lack 'id' or 'name', by their place in the list.", way)
    ids = [entry["id"] for entry in good]
    twice = sorted({number for number in ids if ids.count(number) > 1})
    findings.add("error", "category-id-twice", twice, "Category ids occur twice.", "Give every category its own id.")
    fits = [entry for entry in good if entry.get("keypoints")]
    if wanted is not None:
        fits = [entry for entry in good if wanted in (str(entry["name"]), str(entry["id"]))]
    names = [entry["name"] for entry in fits]
    if len(fits) > 1:
        findings.add("error", "several-categories", names, "Several categories have joints.", "Choose by --category.")
        return None
    if not fits or not fits[0].get("keypoints"):
        told = "No category lists 'keypoints'." if wanted is None else f"Category {wanted!r} lists no 'keypoints'."
        names = [entry["name"] for entry in good]
        findings.add("error", "no-keypoints", names, told, "List the joints' names there.", count=max(1, len(names)))
        return None
    entry = fits[0]
    if isinstance(entry["keypoints"], list) and len(entry["keypoints"]) > MOST_JOINTS:
        told = f"The category has {len(entry['keypoints'])} joints, more than {MOST_JOINTS}."
        way = "List the joints of one person in 'keypoints', each once."
        findings.add("error", "joints-too-many", [entry["name"]], told, way)
        return None
    given = frozenset(key for key in ("skeleton", "OKS_sigmas", "flip_pairs") if entry.get(key))
    try:
        if not isinstance(entry["keypoints"], list) or not all(isinstance(name, str) for name in entry["keypoints"]):
            raise TypeError("'keypoints' is no list of names")
        return entry["id"], Skeleton.from_category(entry), given, set(ids)
    except (TypeError, ValueError, OverflowError) as error:
        way = "Correct the category: names in 'keypoints', pairs counted from 1 in 'skeleton'."
        findings.add("error", "skeleton", [entry["name"]], f"The joints cannot be read ({error})", way)
        return None
