"""One annotation file from several, on the joints of the first: to validate or evaluate on sets of unlike joints.

`python scripts/merge_sets.py both.json coco/annotations/val.json=coco/val lspet/annotations/val.json=lspet/val`

Joints are matched by name; those a set does not know are not labelled in it. Of one set it makes a copy with other joints
(`--joints FILE`): how a model trained on COCO and Leeds Sports does on Leeds Sports.
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
    """The content of the file for all sets.

    Args:
        sets: annotation file and folder of its images.
        root: folder that images are named from.
        joints: annotation file whose joints the persons take; the first set's by default.

    Raises:
        DistilPoseError: a file is missing or wrong, or a set has none of the joints.
    """
    first = sets[0][0] if joints is None else joints
    skeleton = load_annotations(first, unlabelled=True).skeleton
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for file, folder in sets:
        known = load_annotations(file, unlabelled=True)
        places = skeleton.matching(known.skeleton)
        if all(place is None for place in places):
            raise DistilPoseError(f"{file} has none of the joints of {first}: give sets that share joints by name.")
        content = json.loads(file.read_text())
        numbers = {image["id"]: len(images) + place for place, image in enumerate(content["images"], start=1)}
        for image in content["images"]:
            name = Path(os.path.relpath(folder / image["file_name"], root)).as_posix()
            images.append({**image, "id": numbers[image["id"]], "file_name": name})
        for person in content["annotations"]:
            if person["category_id"] != known.category_id:
                continue
            given = person.get("keypoints") or [0] * (3 * known.skeleton.num_keypoints)
            taken = [[0, 0, 0] if place is None else given[3 * place : 3 * place + 3] for place in places]
            own = {
                "id": len(annotations) + 1, "image_id": numbers[person["image_id"]], "category_id": 1,
                "keypoints": [value for joint in taken for value in joint],
                "num_keypoints": sum(joint[2] > 0 for joint in taken),
            }  # fmt: skip
            annotations.append({**person, **own})
    limbs = [[start + 1, end + 1] for start, end in skeleton.limbs]
    category: dict[str, Any] = {"id": 1, "name": "person", "keypoints": list(skeleton.names), "skeleton": limbs}
    if skeleton.sigmas is not None:
        category["OKS_sigmas"] = list(skeleton.sigmas)
    return {"images": images, "annotations": annotations, "categories": [category]}


def main(arguments: list[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(
        description="Write one annotation file for several sets, on the joints of the first."
    )
    parser.add_argument("output", type=Path, help="annotation file to write; images are named from its folder")
    parser.add_argument(
        "sets", nargs="+", metavar="FILE=FOLDER", help="an annotation file and the folder of its images"
    )
    parser.add_argument("--joints", type=Path, help="annotation file whose joints to take; the first set's by default")
    given = parser.parse_args(arguments)
    try:
        if given.output.exists():
            raise DistilPoseError(f"{given.output} exists and is not overwritten: give another name.")
        if not all("=" in one for one in given.sets):
            raise DistilPoseError(f"{' '.join(given.sets)}: give each set as FILE=FOLDER, the folder of its images.")
        pairs = [tuple(map(Path, one.rsplit("=", 1))) for one in given.sets]
        content = merge(pairs, given.output.parent, given.joints)  # type: ignore[arg-type]
        write_text(json.dumps(content), given.output)  # on one line: indented, COCO's is several times as large
    except (DistilPoseError, OSError) as error:
        sys.exit(f"error: {error}")
    joints = len(content["categories"][0]["keypoints"])
    print(f"{given.output}: {len(content['annotations'])} persons on {len(content['images'])} images, {joints} joints")


if __name__ == "__main__":
    main()
