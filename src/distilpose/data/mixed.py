"""Training on several data sets with different skeletons."""

from __future__ import annotations

import logging
import os
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

log = logging.getLogger(__name__)

FIRST = "first"  # name of the main data set in `repeats`


class MixedPersons(Dataset[PoseBatch]):
    """The concatenated persons of several data sets, with the joints of one skeleton.

    It has the attributes of one set, so that baselines and recordings treat it as one. Joints are matched by name
    (`Skeleton.matching`). Joints that a set does not have get weight 0. A flip uses the left-right pairs of the set that the
    person comes from. The ids of persons and images of each further set are shifted past those of the sets before, because
    sets may have ids in common.

    Args:
        sets: the data sets; the same one several times shows its persons several times.
        skeleton: joints of the samples.

    Attributes:
        input_size: (H, W) of the crops.
        padding: (N,) factor on the box of each person, as their sets have it.
        category_id: id of the category in the first set.
        title: names of the annotation files.

    Raises:
        DistilPoseError: a set has no joint of the skeleton, or the sets differ in input size.
    """

    def __init__(self, sets: Sequence[CocoKeypoints], skeleton: Skeleton):
        self.sets, self.skeleton = list(sets), skeleton
        self.input_size, self.category_id = self.sets[0].input_size, self.sets[0].category_id
        self.limit = None
        for dataset in self.sets:
            if dataset.input_size != self.input_size:
                raise DistilPoseError(
                    f"The crops of {self.sets[0].annotations_file} are {self.input_size} and those of "
                    f"{dataset.annotations_file} are {dataset.input_size} (height, width): give all sets one input_size."
                )
        self._starts = np.cumsum([0, *(len(dataset) for dataset in self.sets)])
        self._joints = [_match_joints(dataset, skeleton) for dataset in self.sets]
        self.padding = np.concatenate([np.full(len(dataset), dataset.padding) for dataset in self.sets])
        self.distinct_sets = list(dict.fromkeys(self.sets))
        self.title = " + ".join(dataset.title for dataset in self.distinct_sets)
        self._person_shifts = _shifts([dataset.instances.annotation_ids for dataset in self.distinct_sets])
        self._image_shifts = _shifts([np.array(dataset.image_ids, dtype=np.int64) for dataset in self.distinct_sets])

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
        place = self.distinct_sets.index(self.sets[number])
        fields["annotation_id"] = person.annotation_id + self._person_shifts[place]
        fields["image_id"] = person.image_id + self._image_shifts[place]
        return person._replace(**fields)

    @property
    def distinct(self) -> MixedPersons:
        """Each person once."""
        return self if len(self.distinct_sets) == len(self.sets) else MixedPersons(self.distinct_sets, self.skeleton)

    @property
    def annotations_file(self) -> Path:
        """Not available, because there are several.

        Raises:
            DistilPoseError: always.
        """
        raise DistilPoseError(
            f"A mixture has several annotation files ({self.title}): take one of its sets (data=coco)."
        )

    @cached_property
    def image_ids(self) -> list[int]:
        """Shifted ids of all images of all sets."""
        parts = zip(self.distinct_sets, self._image_shifts, strict=True)
        return sorted(number + shift for dataset, shift in parts for number in dataset.image_ids)

    @property
    def folder(self) -> Path:
        """The folder that holds the image folders of all sets."""
        return Path(os.path.commonpath([os.path.abspath(dataset.folder) for dataset in self.distinct_sets]))

    def image_name(self, image_id: int) -> str:
        """Path of an image in the folder of its set."""
        dataset, number = self._set_of_image(image_id)
        return dataset.image_name(number)

    def image_file(self, image_id: int) -> Path:
        """Path of an image."""
        dataset, number = self._set_of_image(image_id)
        return dataset.image_file(number)

    def read_image(self, image_id: int) -> NDArray[np.uint8]:
        """An image as (H, W, 3) uint8, blue first; see `CocoKeypoints.read_image`."""
        dataset, number = self._set_of_image(image_id)
        return dataset.read_image(number)

    def has_image(self, image_id: int) -> bool:
        """Whether a person is on the image of that id."""
        parts = zip(self.distinct_sets, self._image_shifts, strict=True)
        return any(dataset.has_image(image_id - shift) for dataset, shift in parts)

    def _set_of_image(self, image_id: int) -> tuple[CocoKeypoints, int]:
        """The set of an image, and the image's id in it."""
        for dataset, shift in zip(self.distinct_sets, self._image_shifts, strict=True):
            if dataset.has_image(image_id - shift):
                return dataset, image_id - shift
        raise KeyError(image_id)

    @cached_property
    def instances(self) -> Instances:
        """All persons as arrays, with the joints of the skeleton."""
        parts = []
        for dataset, joints in zip(self.sets, self._joints, strict=True):
            known, persons = joints >= 0, dataset.instances
            place = self.distinct_sets.index(dataset)
            parts.append(
                persons._replace(
                    annotation_ids=persons.annotation_ids + self._person_shifts[place],
                    image_ids=persons.image_ids + self._image_shifts[place],
                    keypoints=np.where(known[:, None], persons.keypoints[:, joints], np.float32(0)),
                    labelled=persons.labelled[:, joints] & known,
                )
            )
        return Instances._make(np.concatenate(field) for field in zip(*parts, strict=True))


class MixedDataModule(CocoDataModule):
    """Training on several data sets, validation on the first one. The model has the skeleton of the first set.

    Args:
        *args: arguments of `CocoDataModule` for the first set.
        others: the other data sets by name. Limit, share of labels and padding are set for each. All sets take the input size
            of the first.
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
            if other.input_size != self.input_size:
                log.info(f"data.others.{name} takes the mixture's input_size={list(self.input_size)}.")
                other.input_size = self.input_size
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


def _shifts(ids: Sequence[NDArray[np.int64]]) -> list[int]:
    """What to add to the ids of each set, so that they are different in all sets; 0 for the first."""
    shifts, end = [0], int(ids[0].max(initial=0)) + 1
    for some in ids[1:]:
        shifts.append(end - min(0, int(some.min(initial=0))))
        end = int(some.max(initial=0)) + shifts[-1] + 1
        if end >= 2**63:
            raise DistilPoseError("The ids of the mixture's sets do not fit into 64 bits together: number them from 1.")
    return shifts


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
