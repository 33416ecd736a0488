"""Crops of persons for comparison and calibration, from annotated persons, whole images of a folder, or drawn persons."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from distilpose.data.annotations import load_annotations
from distilpose.data.boxes import ground_truth_instances
from distilpose.data.geometry import region_of_box, warp_image, warp_of_region, warp_points
from distilpose.data.image_sizes import check_size
from distilpose.data.synthetic.scene import draw_scene
from distilpose.errors import DistilPoseError
from distilpose.inference.images import find_images, read_rgb

_DRAWN_SIZE = 192  # pixels of a side of a drawn image


class Crops(NamedTuple):
    """Crops of M persons.

    Attributes:
        images: (M, H, W, 3) uint8 RGB.
        keypoints: (M, K, 2) crop pixels; None without annotations.
        labelled: (M, K) bool; None without annotations.
        boxes: (M, 4) x, y, width, height in crop pixels; None without annotations.
        names: names of the K joints; empty without annotations.
        description: where they come from.
    """

    images: NDArray[np.uint8]
    keypoints: NDArray[np.float32] | None
    labelled: NDArray[np.bool_] | None
    boxes: NDArray[np.float64] | None
    names: tuple[str, ...]
    description: str


def collect_crops(
    annotations: str | Path | None,
    images: str | Path | None,
    input_size: tuple[int, int],
    padding: float,
    limit: int,
) -> Crops:
    """At most `limit` crops, evenly spaced over the data set.

    Args:
        annotations: COCO keypoint file, whose persons are cropped by their boxes.
        images: folder of its images; without annotations, an image or folder of images that each show one person.
            Without both, persons are drawn.
        input_size: (H, W) of the crops.
        padding: factor on the boxes.
        limit: largest number of crops, at least 1.

    Raises:
        DistilPoseError: a file is missing or malformed, an image has another size than stated, or there is no person.
    """
    if annotations is not None:
        if images is None:
            raise DistilPoseError(f"annotations={annotations} needs the folder of its images: give images=FOLDER.")
        return _annotated_crops(Path(annotations), Path(images), input_size, padding, limit)
    if images is not None:
        files = find_images(images)
        files = [files[index] for index in _spread(len(files), limit)]
        crops = _crop_each(_whole_images(files), input_size, padding)
        description = f"{len(crops)} images of {Path(images).name}, each as one person"
    else:
        crops = _crop_each(_draw_persons(limit), input_size, padding)
        description = f"{len(crops)} drawn persons"
    return Crops(np.stack(crops).astype(np.uint8), None, None, None, (), description)


def _crop_each(
    images: Iterable[tuple[NDArray[np.uint8], ArrayLike]], input_size: tuple[int, int], padding: float
) -> list[NDArray]:
    """The crop of each image's box, with one image in memory at a time."""
    return [
        warp_image(image, warp_of_region(region_of_box(box, input_size, padding), input_size), input_size)
        for image, box in images
    ]


def _whole_images(files: Iterable[Path]) -> Iterator[tuple[NDArray[np.uint8], ArrayLike]]:
    for file in files:
        image = read_rgb(file)
        yield image, [0, 0, image.shape[1], image.shape[0]]


def _draw_persons(count: int) -> Iterator[tuple[NDArray[np.uint8], ArrayLike]]:
    for index in range(count):
        image, persons = draw_scene(np.random.default_rng((7, index)), _DRAWN_SIZE, 1)
        if persons:
            yield image, persons[0]["bbox"]


def _annotated_crops(annotations: Path, images: Path, input_size: tuple[int, int], padding: float, limit: int) -> Crops:
    content = load_annotations(annotations)
    persons = ground_truth_instances(content)
    persons = persons.take(_spread(len(persons.boxes), limit))
    if not len(persons.boxes):
        raise DistilPoseError(f"{annotations} has no person with keypoints: give another annotation file.")
    crops, joints, boxes = [], [], []
    for image_id, box, keypoints in zip(persons.image_ids.tolist(), persons.boxes, persons.keypoints, strict=True):
        warp = warp_of_region(region_of_box(box, input_size, padding), input_size)
        name, *stated = content.images[image_id]
        image = read_rgb(images / name)
        check_size(images / name, image.shape[1::-1], tuple(stated), annotations)
        crops.append(warp_image(image, warp, input_size))
        joints.append(warp_points(keypoints, warp))
        boxes.append(
            [*(warp[:, :2] @ box[:2] + warp[:, 2]), *(box[2:] * warp[0, 0])]
        )  # the warp neither rotates nor flips
    description = f"{len(crops)} persons of {annotations.name}"
    names = content.skeleton.names
    return Crops(
        np.stack(crops).astype(np.uint8), np.stack(joints), persons.labelled, np.array(boxes), names, description
    )


def _spread(count: int, limit: int) -> NDArray[np.int64]:
    """At most `limit` indices below `count`, evenly spaced."""
    return np.unique(np.linspace(0, count - 1, min(count, limit)).round().astype(np.int64))
