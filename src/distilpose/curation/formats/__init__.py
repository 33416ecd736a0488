"""Formats that are read, a module each, and the conversion to COCO."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from distilpose.curation.formats.archive import unpack
from distilpose.curation.formats.coco import Progress, to_coco
from distilpose.curation.formats.common import Person, Source, read_skeleton
from distilpose.errors import DistilPoseError
from distilpose.files import write_json

# module, what its file is called (a folder where None), and the choices it has
_READERS: dict[str, tuple[str, tuple[str, ...] | None, tuple[str, ...]]] = {
    "mpii": ("mpii", (".mat", ".json"), ()),
    "crowdpose": ("crowdpose", (".json",), ("category",)),
    "lsp": ("lsp", (".mat",), ()),
    "cvat": ("cvat", (".xml",), ("skeleton", "category", "split", "box-label")),
    "label-studio": ("label_studio", (".json",), ("skeleton", "category", "box-label")),
    "yolo-pose": ("yolo", None, ("skeleton", "category", "split")),
}

Reader = Callable[[Source], tuple[list[Person], dict[str, Any]]]


def convert_set(
    form: str,
    path: Path,
    images: Path,
    output: Path,
    skeleton: Path | None = None,
    category: str | None = None,
    split: str | None = None,
    box_labels: tuple[str, ...] = (),
    progress: Progress = lambda jobs, count: jobs,
) -> list[str]:
    """Read a set in another format and write it as a COCO file.

    Args:
        form: name of the format.
        path: file or folder of labels, or a zip of them.
        images: folder of the images.
        output: annotation file to write; must not exist.
        skeleton: file with the joints' names, limbs, pairs and sigmas.
        category: name or number of the kind to convert, where there are several.
        split: part of the set, where it has parts.
        box_labels: labels of the rectangles that are persons' boxes, where there are others.
        progress: wraps the loop over images.

    Returns:
        Sentences on what was converted and what was left out.

    Raises:
        DistilPoseError: the source is not of that format or lacks what was chosen, or nothing of it can be used.
    """
    module, suffixes, choices = _READERS[form]
    named = ", ".join(box_labels) or None
    for option, value in (("skeleton", skeleton), ("category", category), ("split", split), ("box-label", named)):
        if value is not None and option not in choices:
            raise DistilPoseError(f"--{option} means nothing for {form}, got {value}: leave it out.")
    if not path.exists():
        raise DistilPoseError(f"Source {path} does not exist: give the labels' file or folder.")
    if not images.is_dir():
        raise DistilPoseError(f"--images {images} is no folder: give the folder of the images.")
    if output.exists():
        raise DistilPoseError(f"--output {output} exists and is not overwritten: choose another name.")
    given = None if skeleton is None else read_skeleton(skeleton)
    read: Reader = import_module(f"{__name__}.{module}").read
    with tempfile.TemporaryDirectory() as temporary:
        folder, archive = Path(temporary).resolve(), path
        if path.suffix.lower() == ".zip":
            path = unpack(archive, folder)
        try:
            source = Source(_labels(path, suffixes, form), images, given, category, split, box_labels)
            persons, entry = read(source)
            content = to_coco(source, persons, entry, progress)
        except DistilPoseError as error:
            if path == archive:
                raise
            # files of a zip are named by where they were unpacked
            raise DistilPoseError(str(error).replace(str(folder), str(archive))) from None
    write_json(content, output)
    joints = len(content["categories"][0]["keypoints"])
    told = [f"{len(content['annotations'])} persons on {len(content['images'])} images, {joints} joints: {output}"]
    told += [f"left out: {reason}" for reason in source.reasons()]
    return told + source.notes


def _labels(path: Path, suffixes: tuple[str, ...] | None, form: str) -> Path:
    """The file to read: itself, or the only fitting one of a folder."""
    if suffixes is None:
        if not path.is_dir():
            raise DistilPoseError(f"Source {path} of {form} must be a folder, of data.yaml and labels.")
        return path
    if path.is_file():
        if path.suffix.lower() not in suffixes:
            raise DistilPoseError(f"Source {path} of {form} must end in {' or '.join(suffixes)}.")
        return path
    found = sorted(one for one in path.rglob("*") if one.suffix.lower() in suffixes and one.is_file())
    if len(found) != 1:
        raise DistilPoseError(
            f"{path} holds {len(found)} files that end in {' or '.join(suffixes)}: give the one to read."
        )
    return found[0]
