"""Recording a teacher: every person asked about once, in the view the teacher likes best."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import track

from distilpose.data.coco import CocoKeypoints, read_image
from distilpose.data.codec import decode_heatmaps
from distilpose.errors import DistilPoseError
from distilpose.evaluation import PCK, mean_pose, pck, predict_mean_pose
from distilpose.teachers.recording import FORMAT, PART, Recording, begin_recording, open_recording, part_of
from distilpose.teachers.sources import Answer, Source


def record(source: Source, dataset: CocoKeypoints, output: str | Path, batch_size: int = 32) -> Recording:
    """Ask a source about every person of a data set; goes on where it was interrupted.

    Args:
        source: the teacher.
        dataset: whose `instances` are recorded, labelled or not; of the source's joints those its skeleton names.
        output: the folder to write. It is filled under another name and renamed when it is complete.
        batch_size: persons asked about at a time.

    Returns:
        The recording; the one that is there where it is the same source's and has every person.

    Raises:
        DistilPoseError: if the folder holds something else, or source and data set have no joint in common.
    """
    output = Path(output)
    joints = _shared(source, dataset)
    about = _about(source, dataset, joints)
    if output.exists():
        return _same(open_recording(output), about, dataset)
    part = part_of(output)
    maps, persons = begin_recording(part, about, dataset)
    todo = np.flatnonzero(~persons["done"])
    chunks = [todo[start : start + batch_size] for start in range(0, len(todo), batch_size)]
    for chunk in track(chunks, f"{source.name} on {len(todo)} persons"):
        files = [dataset.image_file(number) for number in dataset.instances.image_ids[chunk].tolist()]
        answer = source([read_image(file) for file in files], dataset.instances.boxes[chunk])
        _write(maps, persons, chunk, answer, joints)
    maps.flush()
    persons.flush()
    try:
        os.rename(part, output)
    except OSError:  # another process was quicker: its recording serves if it is the same
        if not output.exists():
            raise
        shutil.rmtree(part, ignore_errors=True)
    return _same(open_recording(output), about, dataset)


def find_recording(source: Source, dataset: CocoKeypoints, folder: str | Path) -> Path:
    """Where in a folder the source's recording of these persons is, or is to be: the first that has them all, else a new name.

    Args:
        source: the teacher.
        dataset: the persons.
        folder: of recordings, which are named after source and annotation file.
    """
    stem = f"{source.name}_{dataset.annotations_file.stem}"
    wanted = _about(source, dataset, _shared(source, dataset))
    for path in sorted(Path(folder).glob(f"{stem}_*")):
        if path.suffix == PART:
            continue
        try:
            found = open_recording(path)
        except DistilPoseError:  # another recording's damage is no concern of this one
            continue
        if _alike(found.about, wanted) and not len(found.lacks(dataset)):
            return path
    text = json.dumps(wanted, sort_keys=True)
    return Path(folder) / f"{stem}_{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def joints_found(recording: Recording, dataset: CocoKeypoints) -> tuple[PCK, PCK] | None:
    """PCK of a recording's peaks and, of the same joints, of the mean pose that never looks; None without a label."""
    people = dataset.instances
    rows = recording.rows(people.annotation_ids, people.boxes)
    joints = dataset.skeleton.matching(recording.skeleton)
    labelled = people.labelled & np.array([joint is not None for joint in joints]) & (rows >= 0)[:, None]
    if not labelled.any():
        return None
    places = np.ascontiguousarray(recording.persons["place"][rows][:, [joint or 0 for joint in joints]])
    target, boxes = torch.from_numpy(people.keypoints), torch.from_numpy(people.boxes)
    never_looking = predict_mean_pose(mean_pose(dataset), dataset).keypoints
    found, chance = (
        pck(place, target, torch.from_numpy(labelled), boxes, dataset.skeleton)
        for place in (torch.from_numpy(places), never_looking)
    )
    return found, chance


def told_found(found: tuple[PCK, PCK] | None) -> str:
    """What `joints_found` says, in words."""
    if found is None:
        return "none with labels to compare with"
    own, chance = found
    return f"{own.value:.1%} of labelled joints found (within {own.reference}; mean pose {chance.value:.1%})"


def _shared(source: Source, dataset: CocoKeypoints) -> list[int]:
    """The source's joints that the data set names."""
    joints = {joint for joint in dataset.skeleton.matching(source.skeleton) if joint is not None}
    if not joints:
        raise DistilPoseError(
            f"{source.name} knows {', '.join(source.skeleton.names[:3])}, … and none of the data's joints "
            f"{', '.join(dataset.skeleton.names[:3])}, …: record a teacher of this kind of body."
        )
    return sorted(joints)


def _about(source: Source, dataset: CocoKeypoints, joints: list[int]) -> dict[str, Any]:
    """What is recorded, in plain containers."""
    persons = hashlib.sha256(dataset.instances.annotation_ids.tobytes() + dataset.instances.boxes.tobytes())
    return {
        "format": FORMAT,
        "source": source.about,
        "joints": [source.skeleton.names[joint] for joint in joints],
        "map_size": list(source.map_size),
        "annotations": dataset.annotations_file.name,
        "persons": len(dataset.instances.annotation_ids),
        "persons_sha256": persons.hexdigest(),
    }


def _alike(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether two recordings are of one source and the same joints, of whatever persons."""
    return all(one.get(key) == other.get(key) for key in ("format", "source", "joints", "map_size"))


def _same(found: Recording, about: dict[str, Any], dataset: CocoKeypoints) -> Recording:
    """The recording, unless it is another's or lacks persons."""
    lacking = len(found.lacks(dataset))
    if not _alike(found.about, about) or lacking:
        told = f"lacks {lacking} of these {len(dataset)} persons" if lacking else "is of another source or other joints"
        raise DistilPoseError(
            f"The recording {found.path} {told} ({found.about['source'].get('name')}, {len(found.persons)} persons of "
            f"{found.about.get('annotations')}): nothing is overwritten, give another folder or remove it."
        )
    return found


def _write(maps: NDArray[np.float16], persons: NDArray[Any], chunk: NDArray, answer: Answer, joints: list[int]) -> None:
    """Put the answers about some persons in their places."""
    heatmaps = answer.heatmaps[:, joints]
    height, width = heatmaps.shape[-2:]
    places, peaks = decode_heatmaps(torch.from_numpy(np.ascontiguousarray(heatmaps)))
    cells = places.double().numpy() * (width, height)
    turn, shift = answer.warps[:, :, :2], answer.warps[:, None, :, 2]
    maps[chunk] = heatmaps
    persons["warp"][chunk] = answer.warps
    persons["place"][chunk] = np.linalg.solve(turn[:, None], (cells - shift)[..., None])[..., 0]
    persons["trust"][chunk] = answer.trust[:, joints]
    # without the noise far from the peak; a Gaussian has nine tenths of its sum above a tenth of its peak
    high = heatmaps * (heatmaps >= 0.1 * heatmaps.max(axis=(-2, -1), keepdims=True))
    total = high.clip(min=0).sum(axis=(-2, -1)) / 0.9
    persons["width"][chunk] = np.sqrt(total / (2 * np.pi * peaks.numpy().clip(min=1e-6)))
    persons["done"][chunk] = True  # last: an interruption before it costs these persons only
