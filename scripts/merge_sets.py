"""Merge annotation files with different joints into one, to validate or evaluate on several sets.

`python scripts/merge_sets.py both.json coco/annotations/val.json=coco/val lspet/annotations/val.json=lspet/val`

The result has the joints of the first set. Joints are matched by name; joints that a set does not have are unlabelled.
With a single set and `--joints FILE` it writes a copy with other joints: for example Leeds Sports with COCO's joints, to
evaluate a model that was trained on both.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from distilpose.data.annotations import load_annotations
from distilpose.errors import DistilPoseError
from distilpose.files import write_text


def merge(sets: Sequence[tuple[Path, Path]], root: Path, joints: Path | None = None) -> dict[str, Any]:
    """Create the content of the merged file.

    Args:
        sets: annotation file and image folder of each set.
        root: folder to which the file names of images are relative.
        joints: annotation file with the joints of the result; by default, the first set.

    Raises:
        DistilPoseError: a file is missing or wrong, or a set has none of the joints.
    """
    first = sets[0][0] if joints is None else joints
    skeleton = load_annotations(first, unlabelled=True).skeleton
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for file, folder in sets:
        known = load_annotations(file, unlabelled=True)
        indices = skeleton.matching(known.skeleton)
        if all(index is None for index in indices):
            raise DistilPoseError(f"{file} has none of the joints of {first}: give sets with common joint names.")
        content = json.loads(file.read_text())
        numbers = {image["id"]: len(images) + offset for offset, image in enumerate(content["images"], start=1)}
        for image in content["images"]:
            name = Path(os.path.relpath(folder / image["file_name"], root)).as_posix()
            images.append({**image, "id": numbers[image["id"]], "file_name": name})
        for person in content["annotations"]:
            if person["category_id"] != known.category_id:
                continue
            flat = person.get("keypoints") or [0] * (3 * known.skeleton.num_keypoints)
            matched = [[0, 0, 0] if index is None else flat[3 * index : 3 * index + 3] for index in indices]
            changes = {
                "id": len(annotations) + 1, "image_id": numbers[person["image_id"]], "category_id": 1,
                "keypoints": [value for joint in matched for value in joint],
                "num_keypoints": sum(joint[2] > 0 for joint in matched),
            }  # fmt: skip
            annotations.append({**person, **changes})
    limbs = [[start + 1, end + 1] for start, end in skeleton.limbs]
    category: dict[str, Any] = {"id": 1, "name": "person", "keypoints": list(skeleton.names), "skeleton": limbs}
    category["flip_pairs"] = [list(pair) for pair in skeleton.flip_pairs]
    if skeleton.sigmas is not None:
        category["OKS_sigmas"] = list(skeleton.sigmas)
    return {"images": images, "annotations": annotations, "categories": [category]}


def file_and_folder(text: str) -> tuple[Path, Path]:
    """Parse FILE=FOLDER. argparse reports a ValueError as an error message."""
    file, folder = text.rsplit("=", 1)
    return Path(file), Path(folder)


def main(arguments: list[str] | None = None) -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(
        description="Merge several annotation files into one with the joints of the first."
    )
    parser.add_argument("output", type=Path, help="annotation file to write; image names are relative to its folder")
    parser.add_argument(
        "sets",
        nargs="+",
        metavar="FILE=FOLDER",
        type=file_and_folder,
        help="an annotation file and the folder of its images",
    )
    parser.add_argument("--joints", type=Path, help="annotation file with the joints to use; by default, the first set")
    options = parser.parse_args(arguments)
    try:
        if options.output.exists():
            raise DistilPoseError(f"{options.output} exists and is not overwritten: give another name.")
        content = merge(options.sets, options.output.parent, options.joints)
        write_text(json.dumps(content), options.output)  # indentation would make COCO's file several times larger
    except (DistilPoseError, OSError) as error:
        sys.exit(f"error: {error}")
    joints = len(content["categories"][0]["keypoints"])
    print(
        f"{options.output}: {len(content['annotations'])} persons on {len(content['images'])} images, {joints} joints"
    )


if __name__ == "__main__":
    main()
