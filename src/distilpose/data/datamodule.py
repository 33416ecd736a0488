"""COCO-format folders as a Lightning data module: loaders, and which process sees which person."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader

from distilpose.data.annotations import KeypointAnnotations, load_annotations
from distilpose.data.augmentation import PoseAugmentation
from distilpose.data.coco import CocoKeypoints
from distilpose.data.sampler import SeededShuffleSampler, ShardedBatchSampler, progress_of, taken_up
from distilpose.data.workers import settle, start_method
from distilpose.errors import DistilPoseError, check_flag, check_number, check_size
from distilpose.outputs import PoseBatch
from distilpose.skeleton import Skeleton


class CocoDataModule(LightningDataModule):
    """Person crops of a data set in COCO keypoint format.

    Training and validation use the ground-truth boxes; testing and predicting use the detector's boxes where a file of
    them is given. Samplers are explicit, so run the trainer with `use_distributed_sampler=False`: in training every
    process sees its own share of a common shuffle, in evaluation every person is seen exactly once, by one process.

    Args:
        root: folder of the data set; relative paths below are taken from it.
        train_annotations: COCO keypoint file.
        train_images: folder of its images.
        val_annotations: COCO keypoint file.
        val_images: folder of its images.
        boxes: detector's boxes for the validation images, a JSON list of {image_id, category_id, bbox, score}. The file
            is read only where detector boxes are asked for.
        input_size: (H, W) of a crop in pixels.
        batch_size: crops a process in training.
        val_batch_size: crops a process in evaluation; `batch_size` by default.
        num_workers: loading processes for each training process; 0 loads in the process itself; by default as many as
            there are cores, at most 8.
        augmentation: what training crops go through; none by default.
        category: name or id of the category, where the file has several with keypoints.
        skeleton: `flip_pairs`, `sigmas` or `upper_body` to use in place of what the joint names imply, or a whole
            `Skeleton`.
        padding: factor on the box around a person.
        score_threshold: detector boxes below this score are left out.
        limit_train: only the first so many persons, for debugging and for overfitting on purpose.
        limit_val: only the first so many persons.
        label_share: share of the training persons who keep their labels, in [0, 1].
        unlabelled: whether training persons without labels, the file's or by `label_share`, are shown all the same, for a
            teacher to say where their joints are.
        seed: of the order of training persons and of the views they are shown in.
        monitor: metric that picks the best checkpoint.

    Raises:
        DistilPoseError: on first use, if the folder, a file or anything in it is missing or wrong.
    """

    def __init__(
        self,
        root: str | Path,
        train_annotations: str | Path,
        train_images: str | Path,
        val_annotations: str | Path,
        val_images: str | Path,
        boxes: str | Path | None = None,
        input_size: tuple[int, int] = (256, 192),
        batch_size: int = 32,
        val_batch_size: int | None = None,
        num_workers: int | None = None,
        augmentation: PoseAugmentation | None = None,
        category: str | int | None = None,
        skeleton: Skeleton | Mapping[str, Any] | None = None,
        padding: float = 1.25,
        score_threshold: float = 0.0,
        limit_train: int | None = None,
        limit_val: int | None = None,
        label_share: float = 1.0,
        unlabelled: bool = False,
        seed: int = 0,
        monitor: str = "val/AP",
    ) -> None:
        super().__init__()
        check_number("data.batch_size", batch_size, least=1, whole=True)
        counts = {"limit_train": limit_train, "limit_val": limit_val, "val_batch_size": val_batch_size}
        for name, count in {**counts, "num_workers": num_workers}.items():
            if count is not None:
                check_number(f"data.{name}", count, least=0 if name == "num_workers" else 1, whole=True)
        check_number("data.padding", padding, above=0)
        check_number("data.score_threshold", score_threshold)
        check_number("data.label_share", label_share, least=0, most=1)
        check_flag("data.unlabelled", unlabelled)
        check_number("seed", seed, least=0, most=2**32 - 1, whole=True)
        self.setting = "data"  # by which a message names it
        self.root = Path(root)
        self.train_annotations, self.train_images = self.root / train_annotations, self.root / train_images
        self.val_annotations, self.val_images = self.root / val_annotations, self.root / val_images
        self.boxes = None if boxes is None else self.root / boxes
        self.input_size = check_size("input_size", input_size)
        self.batch_size = batch_size
        self.val_batch_size = val_batch_size or batch_size
        self.num_workers = min(8, os.cpu_count() or 1) if num_workers is None else num_workers
        self.augmentation = augmentation
        self.category = category
        self.padding = padding
        self.score_threshold = score_threshold
        self.limit_train, self.limit_val = limit_train, limit_val
        self.label_share, self.unlabelled = label_share, unlabelled
        self.seed = seed
        self.monitor = monitor
        self._skeleton_options = skeleton
        self._datasets: dict[str, CocoKeypoints] = {}
        self._taken_up = (0, 0)

    @property
    def skeleton(self) -> Skeleton:
        """The joints, known before any set-up: read from the validation annotations."""
        return self._val.skeleton

    @property
    def category_id(self) -> int:
        """The id of the persons' category, as the annotation files have it."""
        return self._val.category_id

    def setup(self, stage: str) -> None:
        """Read and check what the stage needs, images included."""
        if stage == "fit":
            self.train_dataset()
        if stage in ("fit", "validate"):
            self.val_dataset()
        if stage in ("test", "predict"):
            self.val_dataset(detections=self.boxes is not None)

    def state_dict(self) -> dict[str, Any]:
        """Where in its data the training stands that the checkpoint is written of."""
        return progress_of(self.trainer, self.batch_size)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up the order where it was left."""
        self._taken_up = taken_up(state_dict, self.trainer, self.batch_size)

    def train_dataset(self) -> CocoKeypoints:
        """Training persons, augmented."""
        if "train" not in self._datasets:
            if self._train.skeleton.names != self.skeleton.names:
                raise DistilPoseError(
                    f"The joints of {self.train_annotations} are {list(self._train.skeleton.names)}, but those of "
                    f"{self.val_annotations} are {list(self.skeleton.names)}: give two splits of one data set."
                )
            self._datasets["train"] = CocoKeypoints(
                self._train,
                self.train_images,
                input_size=self.input_size,
                train=True,
                augmentation=self.augmentation,
                padding=self.padding,
                limit=self.limit_train,
                label_share=self.label_share,
                unlabelled=self.unlabelled,
            )
        return self._datasets["train"]

    def val_dataset(self, detections: bool = False) -> CocoKeypoints:
        """Validation persons, in their ground-truth boxes or in the detector's."""
        if detections and self.boxes is None:
            raise DistilPoseError("Detector boxes were asked for, but no file is given: set data.boxes=FILE.")
        name = "detections" if detections else "val"
        if name not in self._datasets:
            self._datasets[name] = CocoKeypoints(
                self._val,
                self.val_images,
                boxes=self.boxes if detections else None,
                input_size=self.input_size,
                padding=self.padding,
                score_threshold=self.score_threshold,
                limit=self.limit_val,
            )
        return self._datasets[name]

    def train_dataloader(self) -> DataLoader[PoseBatch]:
        """Shuffled anew each epoch, in an order fixed by the seed and the epoch, also after a resume."""
        dataset = self.train_dataset()
        step = self.batch_size * (self.trainer.accumulate_grad_batches if self.trainer else 1)
        world, rank = self._place()
        if len(dataset) < world * step and rank == 0:
            print(f"A step of {world * step} persons (data.batch_size) has all {len(dataset)} there are, and no more.")
        sampler = SeededShuffleSampler(dataset, world, rank, seed=self.seed, step=step)
        # loading processes fetch ahead before Lightning says which epoch a resumed run is in
        epoch, batches = self._taken_up
        sampler.take_up(epoch, batches * self.batch_size)
        drop_last = len(sampler) >= self.batch_size
        return self._loader(dataset, batch_size=self.batch_size, sampler=sampler, drop_last=drop_last)

    def val_dataloader(self) -> DataLoader[PoseBatch]:
        """Every person once, in ground-truth boxes."""
        return self.evaluation_dataloader(detections=False)

    def test_dataloader(self) -> DataLoader[PoseBatch]:
        """Every person once, in the detector's boxes where a file of them is given."""
        return self.evaluation_dataloader(detections=self.boxes is not None)

    def predict_dataloader(self) -> DataLoader[PoseBatch]:
        """As `test_dataloader`."""
        return self.test_dataloader()

    def evaluation_dataloader(self, detections: bool) -> DataLoader[PoseBatch]:
        """Every validation person exactly once over all processes, in the boxes asked for."""
        dataset = self.val_dataset(detections)
        world, rank = self._place()
        if len(dataset) < world:
            raise DistilPoseError(
                f"{len(dataset)} person(s) to evaluate cannot be shared by {world} processes: lower trainer.devices."
            )
        return self._loader(dataset, batch_sampler=ShardedBatchSampler(len(dataset), self.val_batch_size, world, rank))

    @cached_property
    def _train(self) -> KeypointAnnotations:
        return self._read(self.train_annotations, self.unlabelled)

    @cached_property
    def _val(self) -> KeypointAnnotations:
        return self._read(self.val_annotations)

    def _read(self, path: Path, unlabelled: bool = False) -> KeypointAnnotations:
        if not self.root.is_dir():
            fetch = ", or fetch COCO with scripts/download_coco.py" if "coco" in self.root.name.lower() else ""
            raise DistilPoseError(
                f"Data folder {self.root} does not exist: name your folder with {self.setting}.root=FOLDER{fetch}."
            )
        return load_annotations(path, self.category, self._skeleton_options, unlabelled)

    def _place(self) -> tuple[int, int]:
        """How many processes there are, and this one's number."""
        return (self.trainer.world_size, self.trainer.global_rank) if self.trainer else (1, 0)

    def _loader(self, dataset: CocoKeypoints, **order: Any) -> DataLoader[PoseBatch]:
        return DataLoader(
            dataset,
            **order,
            num_workers=self.num_workers,
            multiprocessing_context=start_method() if self.num_workers else None,
            pin_memory=torch.cuda.is_available(),
            persistent_workers=self.num_workers > 0,
            worker_init_fn=settle,
            generator=torch.Generator().manual_seed(self.seed),  # its own: a loader's draws leave the training's alone
        )
