"""Crops of persons to compare or calibrate with: annotated, whole images of a folder, or drawn."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from distilpose.data.annotations import load_annotations
from distilpose.data.boxes import ground_truth_instances
from distilpose.data.geometry import region_of_box, warp_image, warp_of_region, warp_points
from distilpose.data.synthetic.scene import draw_scene
from distilpose.errors import DistilPoseError
from distilpose.inference.photographs import read_photo
from distilpose.inference.sources import find_images

_DRAWN_SIZE = 192  # pixels of a drawn picture


class Crops(NamedTuple):
    """Crops of M persons.

    Attributes:
        images: (M, H, W, 3) uint8 RGB.
        keypoints: (M, K, 2) crop pixels; None without annotations.
        labelled: (M, K) bool; None without annotations.
        boxes: (M, 4) x, y, width, height in crop pixels; None without annotations.
        names: of the K joints; empty without annotations.
        told: where they come from, in words.
    """

    images: NDArray[np.uint8]
    keypoints: NDArray[np.float32] | None
    labelled: NDArray[np.bool_] | None
    boxes: NDArray[np.float64] | None
    names: tuple[str, ...]
    told: str


def collect_crops(
    annotations: str | Path | None,
    images: str | Path | None,
    input_size: tuple[int, int],
    padding: float,
    limit: int,
) -> Crops:
    """The crops that the settings name, at most `limit`, spread over the whole set.

    Args:
        annotations: COCO keypoint file; its persons in their boxes.
        images: folder of its images; without annotations, an image or folder of images, each taken as one person.
            With neither, people are drawn.
        input_size: (H, W) of the crops.
        padding: factor on the boxes.
        limit: at least 1.

    Raises:
        DistilPoseError: a file is missing or wrong, or no person is there.
    """
    if annotations is not None:
        if images is None:
            raise DistilPoseError(f"annotations={annotations} need the folder of their images: give images=FOLDER.")
        return _annotated(Path(annotations), Path(images), input_size, padding, limit)
    if images is not None:
        files = find_images(images)
        files = [files[index] for index in _spread(len(files), limit)]
        made = _crop_each(_whole(files), input_size, padding)
        told = f"{len(made)} images of {Path(images).name}, each as one person"
    else:
        made = _crop_each(_drawn(limit), input_size, padding)
        told = f"{len(made)} drawn persons"
    return Crops(np.stack(made).astype(np.uint8), None, None, None, (), told)


def _crop_each(
    pictures: Iterable[tuple[NDArray[np.uint8], ArrayLike]], input_size: tuple[int, int], padding: float
) -> list[NDArray]:
    """The crop of each picture's box, one picture in memory at a time."""
    return [
        warp_image(picture, warp_of_region(region_of_box(box, input_size, padding), input_size), input_size)
        for picture, box in pictures
    ]


def _whole(files: Iterable[Path]) -> Iterator[tuple[NDArray[np.uint8], ArrayLike]]:
    for file in files:
        picture = read_photo(file)
        yield picture, [0, 0, picture.shape[1], picture.shape[0]]


def _drawn(count: int) -> Iterator[tuple[NDArray[np.uint8], ArrayLike]]:
    for index in range(count):
        picture, persons = draw_scene(np.random.default_rng((7, index)), _DRAWN_SIZE, 1)
        if persons:
            yield picture, persons[0]["bbox"]


def _annotated(annotations: Path, images: Path, input_size: tuple[int, int], padding: float, limit: int) -> Crops:
    content = load_annotations(annotations)
    persons = ground_truth_instances(content)
    persons = persons.take(_spread(len(persons.boxes), limit))
    if not len(persons.boxes):
        raise DistilPoseError(f"{annotations} has no person with keypoints: give another annotation file.")
    crops, joints, boxes = [], [], []
    for image_id, box, keypoints in zip(persons.image_ids.tolist(), persons.boxes, persons.keypoints, strict=True):
        warp = warp_of_region(region_of_box(box, input_size, padding), input_size)
        picture = read_photo(images / content.images[image_id].file_name)
        crops.append(warp_image(picture, warp, input_size))
        joints.append(warp_points(keypoints, warp))
        boxes.append(
            [*(warp[:, :2] @ box[:2] + warp[:, 2]), *(box[2:] * warp[0, 0])]
        )  # the warp neither turns nor mirrors
    told = f"{len(crops)} persons of {annotations.name}"
    names = content.skeleton.names
    return Crops(np.stack(crops).astype(np.uint8), np.stack(joints), persons.labelled, np.array(boxes), names, told)


def _spread(count: int, limit: int) -> NDArray[np.int64]:
    """At most `limit` of the indices below `count`, evenly."""
    return np.unique(np.linspace(0, count - 1, min(count, limit)).round().astype(np.int64))
