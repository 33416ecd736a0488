"""Write an annotation file for images without labels: `python scripts/annotate_folder.py IMAGES annotations.json`.

Without a detector's boxes, each image is one person in a box as large as the image. No joint is labelled: the file is for
`data.unlabelled=true`, where a teacher predicts the joints.
"""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path
from typing import Any

import numpy as np

from distilpose.data.annotations import load_annotations
from distilpose.data.coco import read_image
from distilpose.data.geometry import on_image
from distilpose.errors import DistilPoseError
from distilpose.files import write_json
from distilpose.inference.boxes import read_boxes
from distilpose.inference.images import find_images, image_ids
from distilpose.skeleton import COCO, Skeleton

log = logging.getLogger(__name__)


def annotate(folder: Path, boxes: Path | None = None, like: Path | None = None) -> dict[str, Any]:
    """Create the content of the annotation file.

    Args:
        folder: folder of images.
        boxes: a detector's list of {image_id or file_name, bbox, score}. Images without a box, boxes without a size and
            boxes outside their image are skipped.
        like: annotation file whose joints are used; COCO's 17 by default.
    """
    skeleton: Skeleton = COCO if like is None else load_annotations(like, unlabelled=True).skeleton
    ids = image_ids(find_images(folder))
    detected = None
    if boxes is not None:
        detected, ids = read_boxes(boxes, ids, category_id=1)
    images, annotations = [], []
    for image, number in ids.items():
        if detected is not None and image not in detected:
            continue
        height, width = size = read_image(image).shape[:2]
        all_boxes = np.array([[0.0, 0.0, width, height]]) if detected is None else detected[image].boxes
        persons = all_boxes[on_image(all_boxes, size)].tolist()
        if not persons:
            continue
        images.append({"id": number, "file_name": image.name, "width": width, "height": height})
        for box in persons:
            annotations.append({"id": len(annotations) + 1, "image_id": number, "category_id": 1, "bbox": box})
    if len(images) < len(ids):
        log.warning(f"{len(ids) - len(images)} of {len(ids)} images have no box that can be used, and are left out.")
    limbs = [[first + 1, second + 1] for first, second in skeleton.limbs]
    category = {"id": 1, "name": "person", "keypoints": list(skeleton.names), "skeleton": limbs}
    return {"images": images, "annotations": annotations, "categories": [category]}


def main(arguments: list[str] | None = None) -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0].partition(":")[0])
    parser.add_argument("folder", type=Path, help="folder of images")
    parser.add_argument("output", type=Path, help="annotation file to write")
    parser.add_argument("--boxes", type=Path, help="a detector's boxes: a JSON list of {file_name, bbox, score}")
    parser.add_argument("--like", type=Path, help="annotation file whose joints to use; COCO's 17 by default")
    args = parser.parse_args(arguments)
    try:
        if args.output.exists():
            raise DistilPoseError(f"{args.output} exists and is not overwritten: give another name.")
        content = annotate(args.folder, args.boxes, args.like)
        write_json(content, args.output)
    except (DistilPoseError, OSError) as error:
        sys.exit(f"error: {error}")
    print(f"{args.output}: {len(content['annotations'])} persons on {len(content['images'])} images, none labelled")


if __name__ == "__main__":
    main()
