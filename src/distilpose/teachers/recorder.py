"""Recording a teacher: its heat maps are computed once for every person, in the view that suits the teacher."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock
from numpy.typing import NDArray
from rich.progress import track

from distilpose.data.coco import CocoKeypoints
from distilpose.data.codec import decode_heatmaps
from distilpose.errors import DistilPoseError
from distilpose.evaluation import PCK, allowed_distance, mean_pose, pck, predict_mean_pose
from distilpose.files import natural_key
from distilpose.teachers.base import Source, SourceOutput, match_joints
from distilpose.teachers.recording_file import FORMAT, KEYS, PART, Recording, begin_recording, open_recording, part_of
from distilpose.teachers.sampling import peak_width

log = logging.getLogger(__name__)


def record(source: Source, dataset: CocoKeypoints, output: str | Path, batch_size: int = 32) -> Recording:
    """Record a source on every person of a data set; an interrupted recording is continued.

    Args:
        source: the teacher.
        dataset: its `instances` are recorded, labelled or not. Joints that the data set does not have are left out.
        output: the folder to write. It has another name until it is complete.
        batch_size: number of persons in one call of the source.

    Returns:
        The new recording, or the existing one if its source is the same and it has every person.

    Raises:
        DistilPoseError: the folder holds something else, or source and data set have no joint in common.
    """
    output, dataset = Path(output), dataset.distinct
    joints = _joints_in_common(source, dataset)
    about = _about(source, dataset, joints)
    if output.exists():
        return _check_same(open_recording(output), about, dataset)
    part = part_of(output)
    part.parent.mkdir(parents=True, exist_ok=True)
    lock = part.with_name(f".{part.name}.lock")
    with FileLock(lock):  # only one of a training's processes records
        if not output.exists():
            _fill(part, source, dataset, about, joints, batch_size)
            os.rename(part, output)
        lock.unlink(missing_ok=True)
    return _check_same(open_recording(output), about, dataset)


def _fill(
    part: Path, source: Source, dataset: CocoKeypoints, about: dict[str, Any], joints: list[int], batch_size: int
) -> None:
    """Record all persons who are not recorded yet."""
    maps, persons = begin_recording(part, about, dataset)
    todo = np.flatnonzero(~persons["done"])
    chunks = [todo[start : start + batch_size] for start in range(0, len(todo), batch_size)]
    for chunk in track(chunks, f"{source.name} on {len(todo)} persons"):
        images = [dataset.read_image(number) for number in dataset.instances.image_ids[chunk].tolist()]
        result = source(images, dataset.instances.boxes[chunk])
        _check_finite(source, result, dataset.instances.annotation_ids[chunk])
        _write(maps, persons, chunk, result, joints)
    maps.flush()
    persons.flush()


def find_recording(source: Source, dataset: CocoKeypoints, folder: str | Path) -> Path:
    """Find a source's recording in a folder: the path of the first that has all persons, else a new path.

    Args:
        source: the teacher.
        dataset: the persons.
        folder: folder of recordings, which are named after source and annotation file.
    """
    dataset = dataset.distinct
    stem = f"{source.name}_{'_'.join(Path(name).stem for name in dataset.title.split(' + '))}"
    wanted = _about(source, dataset, _joints_in_common(source, dataset))
    for path in sorted(Path(folder).glob(f"{stem}_*"), key=natural_key):
        if path.suffix == PART:
            continue
        try:
            recording = open_recording(path)
        except DistilPoseError as error:
            log.warning(f"A damaged recording is passed over: {error}")
            continue
        if _same_source(recording.about, wanted) and not len(recording.missing_persons(dataset)):
            return path
    text = json.dumps({key: value for key, value in wanted.items() if key != KEYS}, sort_keys=True)
    return Path(folder) / f"{stem}_{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def recording_accuracy(recording: Recording, dataset: CocoKeypoints) -> tuple[PCK, PCK] | None:
    """PCK of a recording's peaks and of the mean-pose baseline on the same joints; None if no joint is labelled.

    It is by the size of the box if no person has a labelled torso, so that such a set is checked too.
    """
    people = dataset.instances
    rows = recording.rows(people.annotation_ids, people.boxes)
    joints = dataset.skeleton.matching(recording.skeleton)
    labelled = people.labelled & np.array([joint is not None for joint in joints]) & (rows >= 0)[:, None]
    if not labelled.any():
        return None
    places = np.ascontiguousarray(recording.persons["place"][rows][:, [joint or 0 for joint in joints]])
    target, boxes = torch.from_numpy(people.keypoints), torch.from_numpy(people.boxes)
    baseline = predict_mean_pose(mean_pose(dataset), dataset).keypoints
    known = torch.from_numpy(labelled)
    by_box = not (allowed_distance(target, known, boxes, dataset.skeleton)[0] > 0).any()
    recorded, chance = (
        pck(place, target, known, boxes, dataset.skeleton, by_box) for place in (torch.from_numpy(places), baseline)
    )
    return recorded, chance


def describe_accuracy(accuracy: tuple[PCK, PCK] | None) -> str:
    """Describe the result of `recording_accuracy` in one line."""
    if accuracy is None:
        return "none with labels to compare with"
    recorded, chance = accuracy
    return f"{recorded.value:.1%} of labelled joints found (within {recorded.reference}; mean pose {chance.value:.1%})"


def _check_finite(source: Source, result: SourceOutput, annotation_ids: NDArray[np.int64]) -> None:
    """Raise an error if maps are no finite numbers in float16, as which they are recorded."""
    with np.errstate(over="ignore"):
        maps = np.isfinite(result.heatmaps.astype(np.float16))
    finite = np.asarray(maps.all(axis=(1, 2, 3)) & np.isfinite(result.trust).all(axis=1))
    if not finite.all():
        raise DistilPoseError(
            f"The heat maps of {source.name} are not finite numbers for {(~finite).sum()} of {len(finite)} persons (first "
            f"annotation {annotation_ids[~finite][0]}): give a network that did not diverge, or one in higher precision."
        )


def _joints_in_common(source: Source, dataset: CocoKeypoints) -> list[int]:
    """Indices of the source's joints that the data set has too."""
    return sorted({joint for joint in match_joints(source.skeleton, dataset.skeleton) if joint is not None})


def _about(source: Source, dataset: CocoKeypoints, joints: list[int]) -> dict[str, Any]:
    """Description of a recording in plain containers, for `recording.json`."""
    persons = hashlib.sha256(dataset.instances.annotation_ids.tobytes() + dataset.instances.boxes.tobytes())
    return {
        "format": FORMAT,
        KEYS: "path",
        "source": source.about,
        "joints": [source.skeleton.names[joint] for joint in joints],
        "map_size": list(source.map_size),
        "annotations": dataset.title,
        "persons": len(dataset.instances.annotation_ids),
        "persons_sha256": persons.hexdigest(),
    }


def _same_source(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether two recordings have the same source and joints; their persons may differ."""
    return all(one.get(key) == other.get(key) for key in ("format", "source", "joints", "map_size"))


def _check_same(recording: Recording, about: dict[str, Any], dataset: CocoKeypoints) -> Recording:
    """Return a recording, or raise an error if its source differs or it lacks a person."""
    missing = len(recording.missing_persons(dataset))
    if not _same_source(recording.about, about) or missing:
        reason = f"lacks {missing} of these {len(dataset)} persons" if missing else "has another source or other joints"
        raise DistilPoseError(
            f"The recording {recording.path} {reason} ({recording.about['source'].get('name')}, {len(recording.persons)} "
            f"persons of {recording.about.get('annotations')}): nothing is overwritten, give another folder or remove it."
        )
    return recording


def _write(
    maps: NDArray[np.float16], persons: NDArray[Any], chunk: NDArray, result: SourceOutput, joints: list[int]
) -> None:
    """Write the output for some persons into the recording."""
    heatmaps = result.heatmaps[:, joints]
    height, width = heatmaps.shape[-2:]
    tensor = torch.from_numpy(np.ascontiguousarray(heatmaps))
    if result.cells is None:
        cells = decode_heatmaps(tensor)[0].double().numpy() * (width, height)
    else:
        cells = result.cells[:, joints].astype(np.float64)
    turn, shift = result.warps[:, :, :2], result.warps[:, None, :, 2]
    maps[chunk] = heatmaps
    persons["warp"][chunk] = result.warps
    persons["place"][chunk] = np.linalg.solve(turn[:, None], (cells - shift)[..., None])[..., 0]
    persons["trust"][chunk] = result.trust[:, joints]
    persons["width"][chunk] = peak_width(tensor).numpy()
    persons["done"][chunk] = True  # set last, so that an interruption loses only these persons
