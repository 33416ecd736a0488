"""Several data sets in one training, whatever skeletons they have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from distilpose.data.boxes import Instances
from distilpose.data.coco import CocoKeypoints
from distilpose.data.datamodule import CocoDataModule
from distilpose.errors import DistilPoseError, check_number
from distilpose.outputs import PoseBatch
from distilpose.skeleton import Skeleton

# the set that is validated on, among `repeats`
FIRST = "first"


class MixedPersons(Dataset[PoseBatch]):
    """The persons of several sets, one set after the other, with the joints of one skeleton.

    Joints are matched by name (`Skeleton.matching`); those that a set does not know have weight 0 in it. Each person is
    mirrored by its own set's pairs before that.

    Args:
        sets: whose persons; annotation ids of different sets may be the same.
        skeleton: the joints.

    Raises:
        DistilPoseError: a set has no joint of the skeleton.
    """

    def __init__(self, sets: Sequence[CocoKeypoints], skeleton: Skeleton):
        self.sets, self.skeleton = list(sets), skeleton
        self._starts = np.cumsum([0, *(len(one) for one in self.sets)])
        self._places = [_places(one, skeleton) for one in self.sets]

    def __len__(self) -> int:
        """Number of persons."""
        return int(self._starts[-1])

    def __getitem__(self, item: int | tuple[int, int]) -> PoseBatch:
        """The person's crop and targets, as of `CocoKeypoints`."""
        index, *view = item if isinstance(item, tuple) else (item,)
        number = int(np.searchsorted(self._starts, index, side="right")) - 1
        within = index - int(self._starts[number])
        person = self.sets[number][(within, *view) if view else within]  # type: ignore[index]
        places = self._places[number]
        joints = {name: _take(getattr(person, name), places) for name in ("keypoints", "weights", "labelled")}
        return person._replace(**joints)

    def image_file(self, image_id: int) -> Path:
        """Refused: images of several sets may have the same number."""
        raise DistilPoseError(
            "A teacher cannot be recorded for several sets at once: use teacher=checkpoint, or train on one set (data=coco)."
        )

    @cached_property
    def instances(self) -> Instances:
        """All persons as arrays, with the joints of the skeleton."""
        parts = []
        for one, places in zip(self.sets, self._places, strict=True):
            known = places >= 0
            keypoints = np.where(known[:, None], one.instances.keypoints[:, places], np.float32(0))
            parts.append(
                one.instances._replace(keypoints=keypoints, labelled=one.instances.labelled[:, places] & known)
            )
        return Instances._make(np.concatenate(field) for field in zip(*parts, strict=True))


class MixedDataModule(CocoDataModule):
    """Trains on several sets and validates on the first, whose skeleton is the model's.

    Args:
        *args: of the first set's `CocoDataModule`.
        others: the other sets, by any name. Each has its own limit, share of labels and padding.
        repeats: how often an epoch shows each person of a set, in another view each time; `first` is the first set, and sets
            that are not named are shown once.
        **options: of the first set's `CocoDataModule`; batches are as it says.

    Raises:
        DistilPoseError: `repeats` names no set or no whole number, or a set has crops of another size or persons
            without labels where the first has none.
    """

    def __init__(
        self,
        *args: Any,
        others: Mapping[str, CocoDataModule],
        repeats: Mapping[str, int] | None = None,
        **options: Any,
    ):
        super().__init__(*args, **options)
        self.others = dict(others)
        self.repeats = {FIRST: 1, **dict.fromkeys(others, 1), **(repeats or {})}
        for name, times in self.repeats.items():
            if name != FIRST and name not in others:
                raise DistilPoseError(f"data.repeats.{name}: expected one of {', '.join([FIRST, *others])}.")
            check_number(f"data.repeats.{name}", times, least=1, whole=True)
        for name, other in self.others.items():
            other.setting = f"data.others.{name}"
            if other.input_size != self.input_size:
                raise DistilPoseError(
                    f"data.others.{name}.input_size={list(other.input_size)} must be the first set's, {list(self.input_size)}."
                )
            if other.unlabelled and not self.unlabelled:
                raise DistilPoseError(
                    f"data.others.{name}.unlabelled=true wants data.unlabelled=true too, for the teacher to teach on them."
                )
        self._mixed: MixedPersons | None = None

    def prepare_data(self) -> None:
        """Draw sets that are drawn."""
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


def _places(one: CocoKeypoints, skeleton: Skeleton) -> NDArray[np.int64]:
    """Where each joint of the skeleton is among the set's; -1 where it is not."""
    places = [-1 if place is None else place for place in skeleton.matching(one.skeleton)]
    if max(places, default=-1) < 0:
        raise DistilPoseError(
            f"{one.annotations_file} has none of the joints {', '.join(skeleton.names[:3])}, …: give sets that share joints by "
            "name."
        )
    return np.array(places)


def _take(joints: Tensor, places: NDArray[np.int64]) -> Tensor:
    """The joints in the skeleton's order, 0 where the set does not know one."""
    known = torch.from_numpy(places >= 0)
    taken = joints[torch.from_numpy(np.maximum(places, 0))]
    return torch.where(known if taken.ndim == 1 else known[:, None], taken, torch.zeros_like(taken))
