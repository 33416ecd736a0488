"""The files of a recording: a teacher's heat maps, computed once for each person and read by any number of trainings.

A recording is a folder. `maps.npy` holds all heat maps in float16. Trainings map it into memory instead of reading it, and
trainings on one machine share the pages. `persons.npy` holds the position of each person's map in the image, and
`recording.json` the source of the maps.
"""

from __future__ import annotations

import json
import zlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from distilpose.data.coco import CocoKeypoints
from distilpose.errors import DistilPoseError
from distilpose.files import write_json
from distilpose.skeleton import Skeleton

FORMAT = 1
MAPS, PERSONS, ABOUT = "maps.npy", "persons.npy", "recording.json"
KEYS = "image_keys"  # what identifies an image: see the function of that name
PART = ".part"  # suffix of the folder while the recording is unfinished
WAY_OUT = (
    "record one by `python -m distilpose.record teacher=KIND data=… output=FOLDER` (an interrupted one is continued)"
)


@dataclass(frozen=True)
class Recording:
    """A teacher's heat maps of M persons.

    Attributes:
        path: the folder.
        about: content of `recording.json`; `about["source"]` is the `about` of the source.
        skeleton: the K joints recorded.
        maps: (M, K, h, w) float16, mapped into memory; a peak near 1 at each joint.
        persons: (M,) by field
            annotation_id: id in the annotation file.
            image: CRC-32 of the image's path (`image_keys`), to recognise persons of other images.
            box: (4,) x, y, width, height in image pixels.
            warp: (2, 3) affine matrix from image pixels to cells of the map.
            place: (K, 2) the map's peak in image pixels.
            trust: (K,) in [0, 1], how likely the peak lies on the joint.
            width: (K,) standard deviation in cells of a Gaussian with the map's peak and sum.
            done: whether the person is recorded yet.
    """

    path: Path
    about: dict[str, Any]
    skeleton: Skeleton
    maps: NDArray[np.float16]
    persons: NDArray[Any]

    @cached_property
    def _by_id(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """All annotation ids in ascending order, and the row of each."""
        ids = np.array(self.persons["annotation_id"])
        order = np.argsort(ids, kind="stable")
        return ids[order], order

    def rows(self, annotation_ids: NDArray[np.int64], boxes: NDArray) -> NDArray[np.int64]:
        """(N,) row of each person; -1 for a person who is missing, or whose box differs (a person of another file)."""
        ids, order = self._by_id
        place = np.searchsorted(ids, annotation_ids).clip(max=len(ids) - 1)
        same = (ids[place] == annotation_ids) & (np.abs(self.persons["box"][order[place]] - boxes) < 1).all(axis=1)
        return np.where(same, order[place], -1)

    def missing_persons(self, dataset: CocoKeypoints) -> NDArray[np.int64]:
        """Annotation ids of the persons of a data set who are not in the recording."""
        persons = dataset.instances
        rows = self.rows(persons.annotation_ids, persons.boxes)
        same = (rows >= 0) & (self.persons["image"][rows] == image_keys(dataset, self.about.get(KEYS, "name")))
        return persons.annotation_ids[~same]


def image_keys(dataset: CocoKeypoints, kind: str = "path") -> NDArray[np.uint32]:
    """(M,) CRC-32 of each person's image.

    Args:
        dataset: the persons.
        kind: "path" takes the path inside the folder of images, "name" its last part alone, as recordings of earlier versions
            do: cam1/0001.jpg and cam2/0001.jpg are the same to them.
    """
    names = [Path(dataset.image_name(number)) for number in dataset.instances.image_ids.tolist()]
    keys = [name.name if kind == "name" else name.as_posix() for name in names]
    return np.array([zlib.crc32(key.encode()) for key in keys], dtype=np.uint32)


def open_recording(path: str | Path) -> Recording:
    """Open the recording in a folder.

    Raises:
        DistilPoseError: there is none, it is not finished, or it is damaged.
    """
    path = Path(path)
    try:
        about = json.loads((path / ABOUT).read_text())
        names, version, _ = about["joints"], about["format"], about["source"]["name"]
        maps, persons = np.load(path / MAPS, mmap_mode="r"), np.load(path / PERSONS, mmap_mode="r")
        if version != FORMAT or len(maps) != len(persons) or maps.shape[1] != len(names):
            raise ValueError(f"format {version}, {len(maps)} maps of {len(persons)} persons")
    except (OSError, EOFError, ValueError, LookupError, TypeError) as error:
        raise DistilPoseError(f"{path} is not a readable recording ({error}): {WAY_OUT}.") from None
    return Recording(path, about, Skeleton.from_names(names), maps, persons)


def part_of(output: Path) -> Path:
    """The folder of a recording while it is unfinished."""
    return output.with_name(output.name + PART)


def begin_recording(part: Path, about: dict[str, Any], dataset: CocoKeypoints) -> tuple[np.memmap, np.memmap]:
    """Open `maps` and `persons` of an unfinished recording for writing, and create them if necessary.

    Raises:
        DistilPoseError: the folder holds another unfinished recording, or a damaged one.
    """
    if not (part / ABOUT).exists():
        _create(part, about, dataset)
    try:
        # one of an earlier version continues
        if {**json.loads((part / ABOUT).read_text()), KEYS: about.get(KEYS)} != about:
            raise DistilPoseError(
                f"{part} is another unfinished recording (other persons, settings or source): remove it or give another "
                "folder."
            )
        maps, persons = (cast(np.memmap, np.load(part / name, mmap_mode="r+")) for name in (MAPS, PERSONS))
    except DistilPoseError:
        raise
    except (OSError, EOFError, ValueError, TypeError) as error:
        raise DistilPoseError(
            f"{part} is a damaged unfinished recording ({error}): remove it, and the recording starts again."
        ) from None
    return maps, persons


def _create(part: Path, about: dict[str, Any], dataset: CocoKeypoints) -> None:
    """Create the folder of an empty recording."""
    count, joints = about["persons"], len(about["joints"])
    layout = [
        ("annotation_id", "i8"), ("image", "u4"), ("box", "f8", 4), ("warp", "f8", (2, 3)), ("place", "f4", (joints, 2)),
        ("trust", "f4", joints), ("width", "f4", joints), ("done", "?"),
    ]  # fmt: skip
    part.mkdir(parents=True, exist_ok=True)
    np.lib.format.open_memmap(part / MAPS, "w+", np.dtype("f2"), (count, joints, *about["map_size"]))
    persons = np.zeros(count, np.dtype(layout))
    persons["annotation_id"], persons["box"] = dataset.instances.annotation_ids, dataset.instances.boxes
    persons["image"] = image_keys(dataset)
    np.save(part / PERSONS, persons)
    write_json(about, part / ABOUT)  # written last: a folder without it is created again
