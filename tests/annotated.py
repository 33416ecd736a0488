"""Annotations as files of several formats hold them, and as tests read them back."""

from __future__ import annotations

import numpy as np

# of YOLO-pose: a hand with three joints on 1.png
YOLO_SETTINGS = "kpt_shape: [3, 3]\nflip_idx: [1, 0, 2]\nnames: [hand]\n"
YOLO_LINE = "0 0.5 0.5 0.4 0.5 0.4 0.4 2 0.6 0.4 1 0.5 0.6 0\n"
# of CVAT, for a label
CVAT_SKELETON = '<skeleton label="{}"><points label="a" points="30,40"/><points label="b" points="60,80"/></skeleton>'
CVAT_BOX = '<box label="{}" xtl="10" ytl="10" xbr="100" ybr="100"{}/>'


def cvat_file(path, shapes, labels="", size='width="240" height="160"', head='<?xml version="1.0"?>'):
    """An export of CVAT with these shapes on the image 1.png."""
    head += f"<annotations><meta><labels>{labels}</labels></meta>" if labels else "<annotations>"
    path.write_text(f'{head}<image name="1.png" {size}>{shapes}</image></annotations>')
    return path


def rows(content, joints):
    """Image name and (K, 3) joints of each person."""
    names = {image["id"]: image["file_name"] for image in content["images"]}
    return [(names[row["image_id"]], np.array(row["keypoints"]).reshape(joints, 3)) for row in content["annotations"]]


def truth_of(data, order=range(17)):
    """Image name, (K, 3) joints and box of each person of a sound set, by image and id as they are written."""
    people = sorted(data.people, key=lambda row: (f"{row['image_id']}.png", row["id"]))
    order = list(order)
    return [
        (f"{row['image_id']}.png", np.array(row["keypoints"]).reshape(17, 3)[order], np.array(row["bbox"]))
        for row in people
    ]


def put(person, joint, x, y, v=2):
    """Place a joint of a COCO person."""
    person["keypoints"][3 * joint : 3 * joint + 3] = [x, y, v]


def swap(person, one, other):
    """Exchange two joints of a COCO person."""
    keypoints = person["keypoints"]
    first, second = slice(3 * one, 3 * one + 3), slice(3 * other, 3 * other + 3)
    keypoints[first], keypoints[second] = keypoints[second], keypoints[first]
