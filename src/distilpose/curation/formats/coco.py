"""Persons of any format, made into the COCO file that is written."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distilpose.curation.formats.common import Person, Source
from distilpose.curation.formats.photographs import Wanted, find_photographs
from distilpose.curation.image_files import find_inside, read_header
from distilpose.data.annotations import AREA_OF_BOX
from distilpose.errors import DistilPoseError
from distilpose.skeleton import KNOWN_SIGMAS, Skeleton, side_free

Progress = Callable[[Iterable[Any], int], Iterable[Any]]
_MARGIN = 0.1  # of their extent, around joints that come without a box
_COMMON_SIGMA = KNOWN_SIGMAS["shoulder"]


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
    wanted: dict[str, Wanted] = {}
    persons = list(persons)
    for person in persons:
        wanted.setdefault(person.image, Wanted([person.image])).count += 1
    photographs = find_photographs(source, wanted, "persons of images")
    by_image: dict[str, list[Person]] = {}
    for person in persons:
        if person.image in photographs:
            by_image.setdefault(photographs[person.image], []).append(person)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for name, group in progress(sorted(by_image.items()), len(by_image)):
        size = _size_of(source, name, len(group))
        if size is None:
            continue
        if any(person.size not in (None, size) for person in group):
            source.left_out["persons of images whose file has another size than the source says"] += len(group)
            continue
        images.append({"id": len(images) + 1, "file_name": name, "width": size[0], "height": size[1]})
        for person in group:
            row = _annotation(source, person, size)
            if row is not None:
                annotations.append({"id": len(annotations) + 1, "image_id": len(images), "category_id": 1, **row})
    if not any(row["num_keypoints"] for row in annotations):
        reasons = "; ".join(source.reasons()) or ("nobody has a labelled joint" if annotations else "it lists none")
        raise DistilPoseError(f"Nobody in {source.path} could be converted ({reasons}): check the source and --images.")
    entry = {"id": 1, "name": source.category or "person", **category}
    _complete(entry, source)
    return {"images": images, "annotations": annotations, "categories": [entry]}


def box_around(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """x, y, width, height around (N, 2) points, a tenth of the longer side wider on each side."""
    corner, opposite = points.min(0), points.max(0)
    margin = _MARGIN * max((opposite - corner).max(), 10.0)  # one joint, or joints in a line, have no extent
    return np.concatenate([corner - margin, opposite - corner + 2 * margin])


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
    if not np.isfinite(joints).all() or not np.isin(joints[:, 2], (0, 1, 2)).all():
        source.left_out["persons with coordinates that are no numbers, or a visibility other than 0, 1, 2"] += 1
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
    except (TypeError, ValueError, OverflowError) as error:
        raise DistilPoseError(f"The joints of {source.path} cannot be used: {error}") from None
    entry["flip_pairs"] = [list(pair) for pair in skeleton.flip_pairs]
    sigmas = skeleton.sigmas
    if sigmas is None:
        known = [KNOWN_SIGMAS.get(side_free(name)) for name in skeleton.names]
        sigmas = tuple(_COMMON_SIGMA if value is None else value for value in known)
        unknown = [name for name, value in zip(skeleton.names, known, strict=True) if value is None]
        source.notes.append(
            f"No OKS sigma is known for {len(unknown)} of {len(known)} joints (first {unknown[0][:50]!r}): {_COMMON_SIGMA} "
            "is written, as for a shoulder; measure them by `dataset sigmas` before you compare AP with others."
        )
    entry["OKS_sigmas"] = list(sigmas)
