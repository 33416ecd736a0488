"""The COCO file that a conversion writes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distilpose.curation.conversion.image_lookup import ImageReference, find_images, image_size
from distilpose.curation.conversion.source import Person, Source
from distilpose.curation.parsing import skeleton_of
from distilpose.curation.progress import show_progress
from distilpose.data.image_sizes import is_rounded, plain_ratio
from distilpose.data.units import AREA_OF_BOX, check_pixels
from distilpose.errors import DistilPoseError
from distilpose.files import natural_key
from distilpose.skeleton import KNOWN_SIGMAS, known_sigma

_OTHER_SIZE = "persons of images whose file has another size than the source states"
_MARGIN = 0.1  # margin around joints without a box, as a share of their extent
_DEFAULT_SIGMA = KNOWN_SIGMAS["shoulder"]


def to_coco(source: Source, persons: Iterable[Person], category: dict[str, Any]) -> dict[str, Any]:
    """Content of the COCO file; images that cannot be used are skipped with their persons.

    Args:
        source: gets the counts of what is skipped.
        persons: in the order of their new ids.
        category: COCO category with 'keypoints', and 'name', 'skeleton', 'flip_pairs' and 'OKS_sigmas' if the format has them.

    Raises:
        DistilPoseError: no person with a labelled joint is left.
    """
    persons = list(persons)
    references: dict[str, ImageReference] = {}
    for person in persons:
        references.setdefault(person.image, ImageReference([person.image])).count += 1
    image_of = find_images(source, references, "persons of images")
    by_image: dict[str, list[Person]] = defaultdict(list)
    for person in persons:
        if person.image in image_of:
            by_image[image_of[person.image]].append(person)
    resized: list[str] = []
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for name, group in show_progress(
        sorted(by_image.items(), key=lambda pair: natural_key(pair[0])), len(by_image), "images"
    ):
        size = image_size(source, name, "persons of images", len(group))
        if size is None:
            continue
        stated = next((one.size for one in group if one.size is not None and not is_rounded(size, one.size)), None)
        if stated is not None:
            source.skip(_OTHER_SIZE, len(group))
            resized.append(f"{name[-60:]!r}: {_compare(size, stated)}")
            continue
        images.append({"id": len(images) + 1, "file_name": name, "width": size[0], "height": size[1]})
        for person in group:
            row = _annotation(source, person, size)
            if row is not None:
                annotations.append({"id": len(annotations) + 1, "image_id": len(images), "category_id": 1, **row})
    if resized:
        source.notes.append(f"{len(resized)} images have another size than the source states, first {resized[0]}.")
    if not any(row["num_keypoints"] for row in annotations):
        reasons = "; ".join(source.reasons()) or (
            "no person has a labelled joint" if annotations else "it lists no persons"
        )
        reasons += f"; {resized[0]}" if resized else ""
        raise DistilPoseError(
            f"No person in {source.path} could be converted ({reasons}): check the source and --images."
        )
    points = np.array([row["keypoints"] for row in annotations]).reshape(-1, 3)
    check_pixels(points[points[:, 2] > 0, :2], source.path, "keypoints", "x and y")
    entry = {"id": 1, "name": source.category or "person", **category}
    _complete(entry, source)
    return {"images": images, "annotations": annotations, "categories": [entry]}


def _compare(size: tuple[int, int], stated: tuple[float, float]) -> str:
    """The size of a file and of what was labelled, for a message."""
    ratio = "sides exchanged, as by an EXIF orientation" if size == stated[::-1] else plain_ratio(size, stated)
    return f"{size[0]} x {size[1]}, stated {stated[0]:g} x {stated[1]:g}" + (f", {ratio}" if ratio else "")


def box_around(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Box x, y, width, height around (N, 2) points, with a margin of a tenth of its longer side on each side."""
    corner, opposite = points.min(0), points.max(0)
    margin = _MARGIN * max((opposite - corner).max(), 10.0)  # a single joint has no extent
    return np.concatenate([corner - margin, opposite - corner + 2 * margin])


def _annotation(source: Source, person: Person, size: tuple[int, int]) -> dict[str, Any] | None:
    """COCO fields of a person. If it cannot be used, None, and the reason is counted."""
    joints = np.where(person.joints[:, 2:] > 0, person.joints, 0.0)
    if not np.isfinite(joints).all() or not np.isin(joints[:, 2], (0, 1, 2)).all():
        source.skip("persons with coordinates that are not numbers, or a visibility other than 0, 1, 2")
        return None
    visible = joints[:, 2] > 0
    outside = visible & ((joints[:, :2] < -1) | (joints[:, :2] > np.array(size) + 1)).any(1)
    if outside.any():
        source.skip("joints outside their image", int(outside.sum()))
        joints[outside], visible = 0.0, visible & ~outside
    box = person.box
    if box is None:
        if not visible.any():
            source.skip("persons without labelled joints and without a box")
            return None
        box = box_around(joints[visible, :2])
    corner = np.clip(box[:2], 0, size)
    extent = np.clip(box[:2] + box[2:], 0, size) - corner
    if not np.isfinite(extent).all() or (extent <= 1).any():
        source.skip("persons whose box is empty or outside the image")
        return None
    area = person.area if person.area is not None and person.area > 0 else AREA_OF_BOX * extent[0] * extent[1]
    return {
        "bbox": np.concatenate([corner, extent]).round(2).tolist(),
        "area": round(float(area), 2),
        "iscrowd": int(person.crowd),
        "num_keypoints": int(visible.sum()),
        "keypoints": joints.round(2).ravel().tolist(),
    }


def _complete(entry: dict[str, Any], source: Source) -> None:
    """Write left-right pairs and sigmas into the category, with a note on sigmas that are not known."""
    skeleton = skeleton_of(entry, source.path)
    if skeleton.limbs:
        entry["skeleton"] = [[a + 1, b + 1] for a, b in skeleton.limbs]
    entry["flip_pairs"] = [list(pair) for pair in skeleton.flip_pairs]
    if source.skeleton is not None and source.skeleton.get("flip_pairs") == [] and skeleton.flip_pairs:
        entry["flip_pairs"] = []
        source.notes.append(
            f"--skeleton has no flip_pairs, and the names state {len(skeleton.flip_pairs)}, which training takes: "
            "data.skeleton.flip_pairs=[] trains without pairs."
        )
    sigmas = skeleton.sigmas
    if sigmas is None:
        known = {name: known_sigma(joint) for name, joint in zip(skeleton.names, skeleton.joints, strict=True)}
        sigmas = tuple(value or _DEFAULT_SIGMA for value in known.values())
        unknown = [name for name, value in known.items() if value is None]
        source.notes.append(
            f"No OKS sigma is known for {len(unknown)} of {len(known)} joints (first {unknown[0][:50]!r}): the sigma of a "
            f"shoulder, {_DEFAULT_SIGMA}, is written. Measure them by `dataset sigmas` before you compare AP with others."
        )
    entry["OKS_sigmas"] = list(sigmas)
