"""Training on several data sets with different skeletons."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from annotated_types import Ge
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from distilpose.data.boxes import Instances
from distilpose.data.coco import CocoKeypoints
from distilpose.data.datamodule import CocoDataModule
from distilpose.errors import DistilPoseError
from distilpose.outputs import PoseBatch
from distilpose.skeleton import Skeleton

FIRST = "first"  # name of the main data set in `repeats`


class MixedPersons(Dataset[PoseBatch]):
    """The concatenated persons of several data sets, with the joints of one skeleton.

    Joints are matched by name (`Skeleton.matching`). Joints that a set does not have get weight 0. A flip uses the
    left-right pairs of the set that the person comes from.

    Args:
        sets: the data sets. Annotation ids need not be unique across sets.
        skeleton: joints of the samples.

    Attributes:
        input_size: (H, W) of the crops.
        padding: factor on the boxes of the first set, for the mean-pose baseline.

    Raises:
        DistilPoseError: a set has no joint of the skeleton, or the sets differ in input size.
    """

    def __init__(self, sets: Sequence[CocoKeypoints], skeleton: Skeleton):
        self.sets, self.skeleton = list(sets), skeleton
        self.input_size, self.padding = self.sets[0].input_size, self.sets[0].padding
        for dataset in self.sets:
            if dataset.input_size != self.input_size:
                raise DistilPoseError(
                    f"The crops of {self.sets[0].annotations_file} are {self.input_size} and those of "
                    f"{dataset.annotations_file} are {dataset.input_size} (height, width): give all sets one input_size."
                )
        self._starts = np.cumsum([0, *(len(dataset) for dataset in self.sets)])
        self._joints = [_match_joints(dataset, skeleton) for dataset in self.sets]

    def __len__(self) -> int:
        """Number of persons."""
        return int(self._starts[-1])

    def __getitem__(self, item: int | tuple[int, int]) -> PoseBatch:
        """The person's crop and targets, as in `CocoKeypoints`."""
        index, *seed = item if isinstance(item, tuple) else (item,)
        number = int(np.searchsorted(self._starts, index, side="right")) - 1
        within = index - int(self._starts[number])
        person = self.sets[number][(within, *seed) if seed else within]  # type: ignore[index]
        joints = self._joints[number]
        fields = {name: _take(getattr(person, name), joints) for name in ("keypoints", "weights", "labelled")}
        return person._replace(**fields)

    @property
    def annotations_file(self) -> Path:
        """Not available, because there are several."""
        raise _cannot_record()

    def image_file(self, image_id: int) -> Path:
        """Not available: images of different sets may have the same id."""
        raise _cannot_record()

    @cached_property
    def instances(self) -> Instances:
        """All persons as arrays, with the joints of the skeleton."""
        parts = []
        for dataset, joints in zip(self.sets, self._joints, strict=True):
            known, persons = joints >= 0, dataset.instances
            keypoints = np.where(known[:, None], persons.keypoints[:, joints], np.float32(0))
            parts.append(persons._replace(keypoints=keypoints, labelled=persons.labelled[:, joints] & known))
        return Instances._make(np.concatenate(field) for field in zip(*parts, strict=True))


class MixedDataModule(CocoDataModule):
    """Training on several data sets, validation on the first one. The model has the skeleton of the first set.

    Args:
        *args: arguments of `CocoDataModule` for the first set.
        others: the other data sets by name. Limit, share of labels and padding are set for each. All sets need the same
            input size.
        repeats: views of each person per epoch, by name of the data set; the first set is called `first`. The default is
            one view.
        **options: options of `CocoDataModule` for the first set. Its batch size is used for all sets.

    Raises:
        DistilPoseError: `repeats` has an unknown name, or another set is `unlabelled` and the first is not.
    """

    def __init__(
        self,
        *args: Any,
        others: Mapping[str, CocoDataModule],
        repeats: Mapping[str, Annotated[int, Ge(1)]] | None = None,
        **options: Any,
    ):
        super().__init__(*args, **options)
        self.others = dict(others)
        self.repeats = {FIRST: 1, **dict.fromkeys(others, 1), **(repeats or {})}
        for name in self.repeats:
            if name not in (FIRST, *others):
                raise DistilPoseError(f"data.repeats.{name}: expected one of {', '.join([FIRST, *others])}.")
        for name, other in self.others.items():
            if other.unlabelled and not self.unlabelled:
                raise DistilPoseError(
                    f"data.others.{name}.unlabelled=true needs data.unlabelled=true, so that a teacher supervises these "
                    "persons."
                )
        self._mixed: MixedPersons | None = None

    def prepare_data(self) -> None:
        """Draw the synthetic sets."""
        super().prepare_data()
        for other in self.others.values():
            other.prepare_data()

    def train_dataset(self) -> MixedPersons:  # type: ignore[override]
        """Training persons of all sets, augmented."""
        if self._mixed is None:
            sets = [super().train_dataset()] * self.repeats[FIRST]
            for name, other in self.others.items():
                sets += [other.train_dataset()] * self.repeats[name]
            self._mixed = MixedPersons(sets, self.skeleton)
        return self._mixed


def _cannot_record() -> DistilPoseError:
    return DistilPoseError(
        "A teacher cannot be recorded for several sets at once: use teacher=checkpoint, or train on one set (data=coco)."
    )


def _match_joints(dataset: CocoKeypoints, skeleton: Skeleton) -> NDArray[np.int64]:
    """(K,) index of each joint of the skeleton in the set, -1 for joints that the set does not have."""
    indices = [-1 if index is None else index for index in skeleton.matching(dataset.skeleton)]
    if max(indices) < 0:
        raise DistilPoseError(
            f"{dataset.annotations_file} has none of the joints {', '.join(skeleton.names[:3])}, …: give sets with common "
            "joint names."
        )
    return np.array(indices)


def _take(values: Tensor, joints: NDArray[np.int64]) -> Tensor:
    """Values (joints, ...) of one set in the order of the skeleton, 0 for joints that the set does not have."""
    known = torch.from_numpy(joints >= 0)
    taken = values[torch.from_numpy(np.maximum(joints, 0))]
    return torch.where(known if taken.ndim == 1 else known[:, None], taken, torch.zeros_like(taken))
