"""A data set of person crops from a COCO-format annotation file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from distilpose.data.annotations import KeypointAnnotations, load_annotations
from distilpose.data.boxes import Instances, detector_instances, ground_truth_instances, keep_labels
from distilpose.data.codec import encode_regression
from distilpose.data.geometry import region_of_box, warp_image, warp_of_region, warp_points
from distilpose.data.image_sizes import check_size, displayed_size
from distilpose.data.images import is_cut_off, read_image
from distilpose.errors import DistilPoseError
from distilpose.outputs import IMAGENET_MEAN as MEAN
from distilpose.outputs import IMAGENET_STD as STD
from distilpose.outputs import PoseBatch
from distilpose.skeleton import Skeleton

__all__ = ["CocoKeypoints", "is_cut_off", "read_image"]

_HEADERS = (
    32  # image headers that are read at the start, so that photographs of another size are found before the training
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from distilpose.data.augmentation import PoseAugmentation


class CocoKeypoints(Dataset[PoseBatch]):
    """Persons of a COCO keypoint file, each as a crop with its targets.

    An item is a `PoseBatch` without a batch axis. `dataset[index]` draws the augmented view from torch's generator,
    `dataset[index, seed]` gives the view of that seed. Joints without a label have keypoint (0, 0) and weight 0. With
    detector boxes the persons are the detections, and have no labels.

    Args:
        annotations: COCO keypoint file, or the result of `load_annotations`.
        images: folder of its images.
        boxes: file of detector boxes to use instead of the ground-truth boxes.
        input_size: (H, W) of the crop.
        train: whether `augmentation` is applied.
        skeleton: overrides of what the category implies, see `load_annotations`.
        augmentation: random views for training; None shows each person the same way every time.
        category: name or id of the category, if several categories of the file have keypoints.
        padding: factor on the box around a person.
        score_threshold: detector boxes with a lower score are left out.
        limit: use only this many persons, for debugging and for overfitting on purpose.
        label_share: share of the persons that keep their labels, in [0, 1]; see `keep_labels`.
        unlabelled: whether persons without labels are kept, for a teacher to supervise.

    Attributes:
        skeleton: the joints.
        instances: the persons, as arrays.
        image_ids: ids of all images of the annotation file, with or without persons; an evaluation covers all of them.
        annotations_file: path of the annotation file.
        category_id: id of the persons' category.

    Raises:
        DistilPoseError: the file, a box or an image is missing or wrong. All images are looked up at once, so that a
            missing one does not end a training in the middle of an epoch, and the sizes of a few are compared with those
            that the file states. The sizes of all are compared when they are decoded.
    """

    def __init__(
        self,
        annotations: str | Path | KeypointAnnotations,
        images: str | Path,
        boxes: str | Path | None = None,
        input_size: tuple[int, int] = (256, 192),
        train: bool = False,
        skeleton: Skeleton | Mapping[str, Any] | None = None,
        augmentation: PoseAugmentation | None = None,
        category: str | int | None = None,
        padding: float = 1.25,
        score_threshold: float = 0.0,
        limit: int | None = None,
        label_share: float = 1.0,
        unlabelled: bool = False,
    ) -> None:
        if not isinstance(annotations, KeypointAnnotations):
            annotations = load_annotations(annotations, category, skeleton, unlabelled)
        if boxes is None:
            instances = ground_truth_instances(annotations)
        else:
            instances = detector_instances(boxes, annotations, score_threshold)
        self.limit = limit
        self.instances: Instances = keep_labels(instances.take(slice(limit)), label_share, unlabelled)
        self.skeleton = annotations.skeleton
        self.category_id = annotations.category_id
        self.annotations_file = annotations.path
        self.image_ids = sorted(annotations.images)
        self.input_size = (int(input_size[0]), int(input_size[1]))
        self.augmentation = augmentation if train else None
        self.padding = padding
        self.folder = Path(images)
        used = np.unique(self.instances.image_ids).tolist()
        self._names = {number: annotations.images[number].file_name for number in used}
        self._sizes = {number: annotations.images[number][1:] for number in used}
        self._flip_order = np.array(self.skeleton.flip_order)
        scale = 1 / (255 * np.array(STD))
        self._scale = torch.tensor(scale, dtype=torch.float32)[:, None, None]
        self._offset = torch.tensor(-np.array(MEAN) / STD, dtype=torch.float32)[:, None, None]
        self._check_images()

    def __len__(self) -> int:
        """Number of persons."""
        return len(self.instances.image_ids)

    def __getitem__(self, item: int | tuple[int, int]) -> PoseBatch:
        """The person's crop and targets."""
        index, seed = item if isinstance(item, tuple) else (item, None)
        annotation_id, image_id, bbox, score, keypoints, labelled = (field[index] for field in self.instances)
        image = self.read_image(int(image_id))
        if self.augmentation is None:
            warp = warp_of_region(region_of_box(bbox, self.input_size, self.padding), self.input_size)
            crop = cv2.cvtColor(warp_image(image, warp, self.input_size), cv2.COLOR_BGR2RGB)
        else:
            view = self.augmentation.view(
                bbox, keypoints, labelled, image.shape[1], self.input_size, self.skeleton, self.padding, seed
            )
            warp = view.warp
            crop = cv2.cvtColor(warp_image(image, warp, self.input_size), cv2.COLOR_BGR2RGB)
            crop = self.augmentation.apply_photometric(crop, view.seed)
            if view.flipped:
                keypoints, labelled = keypoints[self._flip_order], labelled[self._flip_order]
        pixels = np.where(labelled[:, None], warp_points(keypoints, warp), np.float32(0))
        flags = torch.from_numpy(labelled.astype(np.float32))
        targets, weights = encode_regression(torch.from_numpy(pixels), flags, self.input_size)
        return PoseBatch(
            image=self._to_tensor(crop),
            keypoints=targets,
            weights=weights,
            labelled=flags,
            warp=torch.from_numpy(warp.astype(np.float32)),
            image_id=torch.tensor(int(image_id)),
            annotation_id=torch.tensor(int(annotation_id)),
            bbox=torch.from_numpy(bbox.astype(np.float32)),
            bbox_score=torch.tensor(float(score)),
        )

    @property
    def title(self) -> str:
        """Name of the annotation file, for messages and the names of recordings."""
        return self.annotations_file.name

    @property
    def distinct(self) -> CocoKeypoints:
        """Each person once: the set itself, in contrast to a mixture."""
        return self

    def has_image(self, image_id: int) -> bool:
        """Whether a person is on the image of that id."""
        return image_id in self._names

    def image_name(self, image_id: int) -> str:
        """Path of an image in the folder, as the annotation file states it."""
        return self._names[image_id]

    def image_file(self, image_id: int) -> Path:
        """Path of an image."""
        return self.folder / self._names[image_id]

    def read_image(self, image_id: int) -> NDArray[np.uint8]:
        """An image as (H, W, 3) uint8, blue first.

        Raises:
            DistilPoseError: it cannot be decoded, or its size is not the one that the annotation file states.
        """
        path = self.image_file(image_id)
        image = read_image(path)
        check_size(path, image.shape[1::-1], self._sizes[image_id], self.annotations_file)
        return image

    def _to_tensor(self, crop: NDArray) -> Tensor:
        """(H, W, 3) uint8 to (3, H, W) float32, normalised."""
        planes = torch.from_numpy(np.ascontiguousarray(crop)).permute(2, 0, 1).contiguous()
        return planes.float().mul_(self._scale).add_(self._offset)

    def _check_images(self) -> None:
        names = self._names.values()
        missing = [name for name in names if not os.path.isfile(os.path.join(self.folder, name))]
        if missing:
            raise DistilPoseError(
                f"{len(missing)} of {len(names)} images that {self.annotations_file} needs are missing, "
                f"first {self.folder / missing[0]}: check the folder of images, data.root in a training."
            )
        for number in list(self._names)[:: max(1, len(names) // _HEADERS)]:
            if (shown := displayed_size(path := self.image_file(number))) is not None:
                check_size(path, shown, self._sizes[number], self.annotations_file)
