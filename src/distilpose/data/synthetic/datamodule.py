"""Synthetic people as a data module: the folder is drawn if it is missing, then read like any COCO set."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from distilpose.data.augmentation import Probability
from distilpose.data.datamodule import CocoDataModule, Count
from distilpose.data.synthetic.dataset import ImageSide, Seed, SyntheticSpec, write_synthetic
from distilpose.skeleton import COCO, Skeleton


class SyntheticDataModule(CocoDataModule):
    """Synthetic people with COCO's 17 joints, to try a method without a download.

    Args:
        root: folder of the set; null is a folder in `folder` named after the parameters, so that different sets can
            coexist.
        folder: parent of a set without a `root`.
        num_train: training images, with 1.6 persons each on average.
        num_val: validation images.
        image_size: width and height of an image in pixels.
        max_persons: largest number of persons in an image; the smallest is one.
        variety: variety of poses, views and clutter. A small network learns a set of less variety sooner.
        drawing_seed: seed of the images; `seed` decides the order of training.
        **options: options of `CocoDataModule`. The skeleton is fixed. The default annotation files and image folders are
            the drawn ones.
    """

    def __init__(
        self,
        root: str | Path | None = None,
        folder: str | Path = "data",
        num_train: Count = SyntheticSpec.num_train,
        num_val: Count = SyntheticSpec.num_val,
        image_size: ImageSide = SyntheticSpec.image_size,
        max_persons: Count = SyntheticSpec.max_persons,
        variety: Probability = SyntheticSpec.variety,
        drawing_seed: Seed = SyntheticSpec.drawing_seed,
        **options: Any,
    ) -> None:
        spec = SyntheticSpec(num_train, num_val, image_size, max_persons, variety, drawing_seed)
        files = {
            "train_annotations": "annotations/person_keypoints_train.json",
            "train_images": "train",
            "val_annotations": "annotations/person_keypoints_val.json",
            "val_images": "val",
        }
        super().__init__(root=root or Path(folder) / f"synthetic-{spec.digest}", skeleton=COCO, **{**files, **options})
        self.spec = spec

    @property
    def skeleton(self) -> Skeleton:
        """COCO's 17 joints, available before anything is drawn."""
        return COCO

    def prepare_data(self) -> None:
        """Draw the set if its folder is missing."""
        write_synthetic(self.root, self.spec)
        super().prepare_data()
