"""Conversion of a data set in another format to COCO."""

from __future__ import annotations

import tempfile
from importlib import import_module
from pathlib import Path

from distilpose.curation.conversion.archive import unpack
from distilpose.curation.conversion.coco import to_coco
from distilpose.curation.conversion.source import Source, read_skeleton
from distilpose.curation.formats import FORMATS
from distilpose.errors import DistilPoseError
from distilpose.files import write_json


def convert_set(
    form: str,
    path: Path,
    images: Path,
    output: Path,
    skeleton: Path | None = None,
    category: str | None = None,
    split: str | None = None,
    box_labels: tuple[str, ...] = (),
    image_tags: tuple[str, ...] = (),
) -> list[str]:
    """Read a data set in another format and write it as a COCO file.

    Args:
        form: name of the format, one of `formats.FORMATS`.
        path: file or folder of labels, or a zip of them.
        images: folder of the images.
        output: annotation file to write.
        skeleton: file with names, limbs, pairs and sigmas of the joints.
        category: name or number of the category to convert, if there are several.
        split: split to convert, if there are several.
        box_labels: labels of the rectangles that are persons' boxes, if other rectangles are drawn too.
        image_tags: NAME=KEY for the <Image> tags of Label Studio and the keys of their images in the tasks' data.

    Returns:
        Lines on what was converted and what was skipped.

    Raises:
        DistilPoseError: the source does not exist, has another format, lacks the chosen category or split, or has no person
            to convert.
    """
    module, suffixes, options = FORMATS[form]
    chosen = {
        "skeleton": skeleton,
        "category": category,
        "split": split,
        "box-label": ", ".join(box_labels) or None,
        "image-tag": ", ".join(image_tags) or None,
    }
    for option, value in chosen.items():
        if value is not None and option not in options:
            raise DistilPoseError(f"--{option} does not apply to {form}, got {value}: leave it out.")
    if not path.exists():
        raise DistilPoseError(f"{path} does not exist: give the file or folder of the labels.")
    if not all("=" in pair for pair in image_tags):
        raise DistilPoseError(f"--image-tag {' '.join(image_tags)} must be NAME=KEY, such as --image-tag img1=front.")
    tags = dict(pair.split("=", 1) for pair in image_tags)
    entry = None if skeleton is None else read_skeleton(skeleton)
    with tempfile.TemporaryDirectory() as temporary:
        folder, labels = Path(temporary).resolve(), path
        try:
            if path.suffix.lower() == ".zip":
                labels = unpack(path, folder)
            source = Source(_find_labels(labels, suffixes), images, entry, category, split, box_labels, tags)
            persons, source_category = import_module(f"distilpose.curation.formats.{module}").read(source)
            content = to_coco(source, persons, source_category)
        except DistilPoseError as error:  # name the zip in place of the folder that it is unpacked to
            raise DistilPoseError(str(error).replace(str(folder), str(path))) from None
    write_json(content, output)
    joints = len(content["categories"][0]["keypoints"])
    summary = f"{len(content['annotations'])} persons on {len(content['images'])} images, {joints} joints: {output}"
    return [summary, *(f"skipped: {reason}" for reason in source.reasons()), *source.notes]


def _find_labels(path: Path, suffixes: tuple[str, ...]) -> Path:
    """The folder itself, the file itself, or the only file of the format in a folder."""
    if not suffixes:
        return path
    files = [path] if path.is_file() else sorted(one for one in path.rglob("*") if one.is_file())
    matches = [one for one in files if one.suffix.lower() in suffixes]
    if len(matches) != 1:
        raise DistilPoseError(
            f"{path} holds {len(matches)} files that end in {' or '.join(suffixes)}: give the one to convert."
        )
    return matches[0]
