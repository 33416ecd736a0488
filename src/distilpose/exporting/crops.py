"""Crops of persons to compare or calibrate with: annotated, whole images of a folder, or drawn."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from distilpose.data.annotations import load_annotations
from distilpose.data.boxes import ground_truth_instances
from distilpose.data.coco import read_image
from distilpose.data.geometry import region_of_box, warp_image, warp_of_region, warp_points
from distilpose.data.synthetic.scene import draw_scene
from distilpose.errors import DistilPoseError
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
        pictures = [cv2.cvtColor(read_image(file), cv2.COLOR_BGR2RGB) for file in files]
        whole = [np.array([0, 0, picture.shape[1], picture.shape[0]]) for picture in pictures]
        told = f"{len(files)} images of {Path(images).name}, each as one person"
    else:
        drawn = [draw_scene(np.random.default_rng((7, index)), _DRAWN_SIZE, 1) for index in range(limit)]
        drawn = [(picture, persons) for picture, persons in drawn if persons]
        pictures, whole = [picture for picture, _ in drawn], [np.array(persons[0]["bbox"]) for _, persons in drawn]
        told = f"{len(drawn)} drawn persons"
    warps = [warp_of_region(region_of_box(box, input_size, padding), input_size) for box in whole]
    made = [warp_image(picture, warp, input_size) for picture, warp in zip(pictures, warps, strict=True)]
    return Crops(np.stack(made).astype(np.uint8), None, None, None, (), told)


def _annotated(annotations: Path, images: Path, input_size: tuple[int, int], padding: float, limit: int) -> Crops:
    content = load_annotations(annotations)
    persons = ground_truth_instances(content)
    persons = persons.take(_spread(len(persons.boxes), limit))
    if not len(persons.boxes):
        raise DistilPoseError(f"{annotations} has no person with keypoints: give another annotation file.")
    crops, joints, boxes = [], [], []
    for image_id, box, keypoints in zip(persons.image_ids.tolist(), persons.boxes, persons.keypoints, strict=True):
        warp = warp_of_region(region_of_box(box, input_size, padding), input_size)
        picture = read_image(images / content.images[image_id].file_name)
        crops.append(cv2.cvtColor(warp_image(picture, warp, input_size), cv2.COLOR_BGR2RGB))
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
