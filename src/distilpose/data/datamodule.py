"""Data sets in COCO keypoint format as a Lightning data module."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

import torch
from annotated_types import Ge, Gt, Le
from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader

from distilpose.data.annotations import KeypointAnnotations, load_annotations
from distilpose.data.augmentation import PoseAugmentation, Probability
from distilpose.data.coco import CocoKeypoints
from distilpose.data.flip_pairs import check_flip_pairs
from distilpose.data.sampler import SeededShuffleSampler, ShardedBatchSampler, data_progress, resume_position
from distilpose.data.workers import init_worker, start_method
from distilpose.errors import DistilPoseError
from distilpose.outputs import PoseBatch
from distilpose.skeleton import Skeleton

log = logging.getLogger(__name__)

Count = Annotated[int, Ge(1)]


class CocoDataModule(LightningDataModule):
    """Person crops of a data set in COCO keypoint format.

    Training and validation use the ground-truth boxes; `evaluation_dataloader` can use a detector's. The samplers are
    explicit, so run the trainer with `use_distributed_sampler=False`: in training each process takes its shard of one
    common shuffle; in evaluation exactly one process sees each person, once.

    Args:
        root: folder of the data set. The paths below are relative to it.
        train_annotations: COCO keypoint file of the training split.
        train_images: folder of the training images.
        val_annotations: COCO keypoint file of the validation split.
        val_images: folder of the validation images.
        boxes: detector boxes of the validation images, a JSON list of {image_id, category_id, bbox, score}. The file is
            read only if detector boxes are asked for.
        input_size: height and width of a crop in pixels.
        batch_size: crops per process and training step.
        val_batch_size: crops per process and evaluation step; null is `batch_size`.
        num_workers: worker processes of each training process. 0 loads in the training process itself; null is the
            number of cores, at most 8.
        augmentation: random views of training crops; null shows each person the same way every time.
        category: name or id of the category, if several categories of the file have keypoints.
        skeleton: `flip_pairs`, `sigmas` or `upper_body` that override what the joint names imply, or a `Skeleton`.
        padding: factor on the box around a person.
        score_threshold: detector boxes with a lower score are left out.
        limit_train: use only this many training persons, for debugging and for overfitting on purpose.
        limit_val: use only this many validation persons.
        label_share: share of the training persons that keep their labels.
        unlabelled: keep training persons without labels, whether the file has none or `label_share` removed them. A
            teacher can supervise them.
        seed: seed of the order of the training persons and of their views.
        monitor: metric that selects the best checkpoint.

    Raises:
        DistilPoseError: on first use, if a file is missing, or its content is wrong.
    """

    def __init__(
        self,
        root: str | Path,
        train_annotations: str | Path,
        train_images: str | Path,
        val_annotations: str | Path,
        val_images: str | Path,
        boxes: str | Path | None = None,
        input_size: tuple[Count, Count] = (256, 192),
        batch_size: Count = 32,
        val_batch_size: Count | None = None,
        num_workers: Annotated[int, Ge(0), Le(1024)] | None = None,
        augmentation: PoseAugmentation | None = None,
        category: str | int | None = None,
        skeleton: Skeleton | Mapping[str, Any] | None = None,
        padding: Annotated[float, Gt(0)] = 1.25,
        score_threshold: Probability = 0.0,
        limit_train: Count | None = None,
        limit_val: Count | None = None,
        label_share: Probability = 1.0,
        unlabelled: bool = False,
        seed: Annotated[int, Ge(0), Le(2**32 - 1)] = 0,
        monitor: str = "val/AP",
    ) -> None:
        super().__init__()
        self.root = Path(root)
        self.train_annotations, self.train_images = self.root / train_annotations, self.root / train_images
        self.val_annotations, self.val_images = self.root / val_annotations, self.root / val_images
        self.boxes = None if boxes is None else self.root / boxes
        self.input_size = (input_size[0], input_size[1])
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
        self._position = (0, 0)  # epoch and batch at which training starts or resumes

    @property
    def skeleton(self) -> Skeleton:
        """The joints, available before `setup`: read from the validation annotations."""
        return self._val.skeleton

    @property
    def category_id(self) -> int:
        """Id of the persons' category in the annotation files."""
        return self._val.category_id

    def setup(self, stage: str) -> None:
        """Read and check what the stage needs, images included."""
        if stage == "fit":
            self.train_dataset()
        self.val_dataset()

    def state_dict(self) -> dict[str, Any]:
        """Position in the training data, saved with each checkpoint."""
        return data_progress(self.trainer, self.batch_size)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Resume at the position of a checkpoint."""
        self._position = resume_position(state_dict, self.trainer, self.batch_size)

    def train_dataset(self) -> CocoKeypoints:
        """Training persons, augmented."""
        if "train" not in self._datasets:
            if self._train.skeleton.names != self.skeleton.names:
                raise DistilPoseError(
                    f"The joints of {self.train_annotations} are {list(self._train.skeleton.names)}, but those of "
                    f"{self.val_annotations} are {list(self.skeleton.names)}: give two splits of one data set."
                )
            check_flip_pairs(self._train, self._val, self._skeleton_options, self.augmentation)
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
            raise DistilPoseError("data.boxes is null, but detector boxes were asked for: give data.boxes=FILE.")
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
        """Batches in an order that the seed and the epoch alone decide, also after a resume."""
        dataset = self.train_dataset()
        step = self.batch_size * (self.trainer.accumulate_grad_batches if self.trainer else 1)
        world, rank = self._world_and_rank()
        if len(dataset) < world * step and rank == 0:
            log.warning(
                f"The training set has {len(dataset)} persons, fewer than the {world * step} of one step: "
                "every step uses all of them."
            )
        sampler = SeededShuffleSampler(dataset, world, rank, seed=self.seed, step=step)
        # set before the first epoch, because workers prefetch before Lightning calls `set_epoch` in a resumed run
        epoch, batches = self._position
        sampler.resume(epoch, batches * self.batch_size)
        drop_last = len(sampler) >= self.batch_size
        return self._loader(dataset, batch_size=self.batch_size, sampler=sampler, drop_last=drop_last)

    def val_dataloader(self) -> DataLoader[PoseBatch]:
        """Every person once, in ground-truth boxes."""
        return self.evaluation_dataloader(detections=False)

    def evaluation_dataloader(self, detections: bool) -> DataLoader[PoseBatch]:
        """Every validation person exactly once over all processes."""
        dataset = self.val_dataset(detections)
        world, rank = self._world_and_rank()
        if len(dataset) < world:
            raise DistilPoseError(
                f"{len(dataset)} person(s) to evaluate cannot be shared by {world} processes: lower trainer.devices."
            )
        return self._loader(dataset, batch_sampler=ShardedBatchSampler(len(dataset), self.val_batch_size, world, rank))

    @cached_property
    def _train(self) -> KeypointAnnotations:
        return load_annotations(self.train_annotations, self.category, self._skeleton_options, self.unlabelled)

    @cached_property
    def _val(self) -> KeypointAnnotations:
        return load_annotations(self.val_annotations, self.category, self._skeleton_options)

    def _world_and_rank(self) -> tuple[int, int]:
        return (self.trainer.world_size, self.trainer.global_rank) if self.trainer else (1, 0)

    def _loader(self, dataset: CocoKeypoints, **order: Any) -> DataLoader[PoseBatch]:
        return DataLoader(
            dataset,
            **order,
            num_workers=self.num_workers,
            multiprocessing_context=start_method() if self.num_workers else None,
            pin_memory=torch.cuda.is_available(),
            persistent_workers=self.num_workers > 0,
            worker_init_fn=init_worker,
            generator=torch.Generator().manual_seed(self.seed),  # the default would use torch's global generator
        )
