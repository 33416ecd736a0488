"""Drawn people as a data module: the folder is made when missing, then read like any COCO set."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from distilpose.data.datamodule import CocoDataModule
from distilpose.data.synthetic.dataset import SyntheticSpec, write_synthetic
from distilpose.skeleton import COCO, Skeleton


class SyntheticDataModule(CocoDataModule):
    """People drawn by rule, for trying a method without downloading anything.

    Args:
        root: folder of the set; by default one in `folder` that is named after the parameters, so that different sets
            lie side by side.
        folder: where a set without a `root` goes.
        num_train: training pictures, with 1.6 persons each on average.
        num_val: validation pictures.
        image_size: width and height of a picture in pixels.
        max_persons: a picture holds one to this many persons.
        variety: of poses, views and clutter, 0 to 1; the less, the sooner a small network learns them.
        drawing_seed: decides the pictures; `seed` decides the order of training.
        **options: of `CocoDataModule`, all but the skeleton, which is given; the annotation files and image folders are those
            that are drawn, unless others are asked for.
    """

    def __init__(
        self,
        root: str | Path | None = None,
        folder: str | Path = "data",
        num_train: int = SyntheticSpec.num_train,
        num_val: int = SyntheticSpec.num_val,
        image_size: int = SyntheticSpec.image_size,
        max_persons: int = SyntheticSpec.max_persons,
        variety: float = SyntheticSpec.variety,
        drawing_seed: int = SyntheticSpec.drawing_seed,
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
        """COCO's 17 joints, known before anything is drawn."""
        return COCO

    def prepare_data(self) -> None:
        """Draw the set if its folder is missing."""
        write_synthetic(self.root, self.spec)
        super().prepare_data()
