"""What all formats have in common: persons as they are read, and the COCO file they become."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distilpose.curation.image_files import find_inside, read_header
from distilpose.curation.reading import compact
from distilpose.data.annotations import AREA_OF_BOX, read_json
from distilpose.errors import DistilPoseError
from distilpose.skeleton import KNOWN_SIGMAS, Skeleton, side_free

Progress = Callable[[Iterable[Any], int], Iterable[Any]]
_MARGIN = 0.1  # of their extent, around joints that come without a box
_COMMON_SIGMA = KNOWN_SIGMAS["shoulder"]
SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")


@dataclass
class Person:
    """One person of a foreign file.

    Attributes:
        image: file name, relative to the image folder.
        joints: (K, 3) x, y in pixels of the image and v (0 not labelled, 1 hidden, 2 seen).
        box: x, y, width, height in pixels; None where the format has none.
        area: square pixels, None where the format has none.
        crowd: whether it is a crowd.
    """

    image: str
    joints: NDArray[np.float64]
    box: NDArray[np.float64] | None = None
    area: float | None = None
    crowd: bool = False


@dataclass
class Source:
    """Where to read from, and what the user chose.

    Attributes:
        path: file or folder of the labels.
        images: folder of the images.
        skeleton: a COCO category to take joints from, where given.
        category: name of the kind to convert, where there are several.
        split: part of the set, where it has parts.
        left_out: reasons, with how often each applied.
        notes: sentences on choices made.
    """

    path: Path
    images: Path
    skeleton: Mapping[str, Any] | None = None
    category: str | None = None
    split: str | None = None
    left_out: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)

    def joints(self, count: int) -> dict[str, Any]:
        """The category given, if it has as many joints; else joints without names.

        Raises:
            DistilPoseError: it has another number of joints.
        """
        if self.skeleton is not None:
            names = self.skeleton["keypoints"]
            if len(names) != count:
                raise DistilPoseError(f"--skeleton lists {len(names)} joints, but {self.path} has {count}: list these.")
            return dict(self.skeleton)
        if count == 17:
            self.notes.append("17 joints without names: taken for COCO's, nose to right ankle (else give --skeleton).")
        else:
            self.notes.append(f"{count} joints without names: called joint_0 and so on (give --skeleton to name them).")
        return category_of(Skeleton.unnamed(count))


def category_of(skeleton: Skeleton) -> dict[str, Any]:
    """The COCO category of a skeleton."""
    return {"keypoints": list(skeleton.names), "skeleton": [[a + 1, b + 1] for a, b in skeleton.limbs]}


def read_skeleton(path: Path) -> dict[str, Any]:
    """The joints of a JSON file: a COCO category, or an annotation file with one that has keypoints.

    Raises:
        DistilPoseError: it is no such file.
    """
    content = read_json(path, "Skeleton file", "give a JSON file with 'keypoints' and 'skeleton'")
    if isinstance(content, dict) and isinstance(content.get("categories"), list):
        fits = [entry for entry in content["categories"] if isinstance(entry, dict) and entry.get("keypoints")]
        content = fits[0] if len(fits) == 1 else None
    if not isinstance(content, dict) or not isinstance(content.get("keypoints"), list):
        raise DistilPoseError(f"--skeleton {path} has no list 'keypoints': give a COCO category as JSON.")
    kept = {key: content[key] for key in ("keypoints", "skeleton", "flip_pairs", "OKS_sigmas") if content.get(key)}
    try:
        Skeleton.from_category(kept)
    except (TypeError, ValueError) as error:
        raise DistilPoseError(f"--skeleton {path} cannot be read: {error}") from None
    return kept


def read_foreign_json(path: Path) -> Any:
    """The content of a JSON file with its keypoints packed; deep nesting is told in a sentence."""
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"), object_hook=compact)
    except RecursionError:
        raise DistilPoseError(f"{path} is nested too deeply to be read: export it again.") from None
    except ValueError as error:
        raise DistilPoseError(f"{path} is not JSON ({' '.join(str(error).split())[:120]}): export it again.") from None


def to_coco(source: Source, persons: Iterable[Person], category: dict[str, Any], progress: Progress) -> dict[str, Any]:
    """The COCO file's content; images that cannot be used are left out with their persons.

    Args:
        source: counts what is left out.
        persons: in the order they get their ids.
        category: keypoints, and what else is known of them.
        progress: wraps the loop over images.

    Raises:
        DistilPoseError: nobody is left.
    """
    by_image: dict[str, list[Person]] = {}
    for person in persons:
        by_image.setdefault(person.image, []).append(person)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for name, group in progress(sorted(by_image.items()), len(by_image)):
        size = _size_of(source, name, len(group))
        if size is None:
            continue
        images.append({"id": len(images) + 1, "file_name": name, "width": size[0], "height": size[1]})
        for person in group:
            row = _annotation(source, person, size)
            if row is not None:
                annotations.append({"id": len(annotations) + 1, "image_id": len(images), "category_id": 1, **row})
    if not annotations:
        reasons = "; ".join(f"{count} {reason}" for reason, count in source.left_out.items()) or "it lists none"
        raise DistilPoseError(f"Nobody in {source.path} could be converted ({reasons}): check the source and --images.")
    entry = {"id": 1, "name": source.category or "person", **category}
    _complete(entry, source)
    return {"images": images, "annotations": annotations, "categories": [entry]}


def box_around(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """x, y, width, height around (N, 2) points, a tenth of the longer side wider on each side."""
    corner, opposite = points.min(0), points.max(0)
    margin = _MARGIN * max((opposite - corner).max(), 10.0)  # one joint, or joints in a line, have no extent
    return np.concatenate([corner - margin, opposite - corner + 2 * margin])


def image_index(folder: Path) -> dict[str, list[str]]:
    """The images below a folder by their bare name."""
    found: dict[str, list[str]] = {}
    for name in image_names(folder):
        found.setdefault(os.path.basename(name), []).append(name)
    return found


def image_names(folder: Path) -> Iterator[str]:
    """Names of the images below a folder, relative to it; links to folders are not followed."""
    for root, _, files in os.walk(folder):
        for file in files:
            if file.lower().endswith(SUFFIXES):
                yield (Path(root) / file).relative_to(folder).as_posix()


def _size_of(source: Source, name: str, persons: int) -> tuple[int, int] | None:
    """Width and height of an image, or None with the reason counted."""
    try:
        return read_header(find_inside(source.images, name)).shown
    except PermissionError:
        reason = "persons of images whose names lead out of the image folder"
    except DistilPoseError:
        reason = "persons of images that cannot be read or are too large"
    except (OSError, ValueError):
        reason = "persons of images that are missing"
    source.left_out[reason] += persons
    return None


def _annotation(source: Source, person: Person, size: tuple[int, int]) -> dict[str, Any] | None:
    """The fields of a person, or None with the reason counted."""
    joints = np.where(person.joints[:, 2:] > 0, person.joints, 0.0)
    if not np.isfinite(joints).all():
        source.left_out["persons with coordinates that are no numbers"] += 1
        return None
    seen = joints[:, 2] > 0
    outside = seen & ((joints[:, :2] < -1) | (joints[:, :2] > np.array(size) + 1)).any(1)
    if outside.any():
        source.left_out["joints outside their image"] += int(outside.sum())
        joints[outside], seen = 0.0, seen & ~outside
    box = person.box
    if box is None:
        if not seen.any():
            source.left_out["persons without labelled joints and without a box"] += 1
            return None
        box = box_around(joints[seen, :2])
    corner = np.clip(box[:2], 0, size)
    extent = np.clip(box[:2] + box[2:], 0, size) - corner
    if not np.isfinite(extent).all() or (extent <= 1).any():
        source.left_out["persons whose box is empty or outside the image"] += 1
        return None
    area = person.area if person.area is not None and person.area > 0 else AREA_OF_BOX * extent[0] * extent[1]
    return {
        "bbox": np.concatenate([corner, extent]).round(2).tolist(),
        "area": round(float(area), 2),
        "iscrowd": int(person.crowd),
        "num_keypoints": int(seen.sum()),
        "keypoints": joints.round(2).ravel().tolist(),
    }


def _complete(entry: dict[str, Any], source: Source) -> None:
    """Write left-right pairs and sigmas into the category, and say where they come from."""
    try:
        skeleton = Skeleton.from_category(entry)
    except (TypeError, ValueError) as error:
        raise DistilPoseError(f"The joints of {source.path} cannot be used: {error}") from None
    entry["flip_pairs"] = [list(pair) for pair in skeleton.flip_pairs]
    sigmas = skeleton.sigmas
    if sigmas is None:
        known = [KNOWN_SIGMAS.get(side_free(name)) for name in skeleton.names]
        sigmas = tuple(_COMMON_SIGMA if value is None else value for value in known)
        unknown = [name for name, value in zip(skeleton.names, known, strict=True) if value is None]
        source.notes.append(
            f"No OKS sigma is known for {len(unknown)} of {len(known)} joints (first {unknown[0]}): {_COMMON_SIGMA} is "
            "written, as for a shoulder; measure them by `dataset sigmas` before you compare AP with others."
        )
    entry["OKS_sigmas"] = list(sigmas)
