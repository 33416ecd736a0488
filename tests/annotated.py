"""Writes annotations in several formats, and reads converted ones."""

from __future__ import annotations

import json

import numpy as np

# YOLO-pose: a hand with three joints on 1.png
YOLO_SETTINGS = "kpt_shape: [3, 3]\nflip_idx: [1, 0, 2]\nnames: [hand]\n"
YOLO_LINE = "0 0.5 0.5 0.4 0.5 0.4 0.4 2 0.6 0.4 1 0.5 0.6 0\n"
# CVAT: shapes with a label
CVAT_SKELETON = '<skeleton label="{}"><points label="a" points="30,40"/><points label="b" points="60,80"/></skeleton>'
CVAT_BOX = '<box label="{}" xtl="10" ytl="10" xbr="100" ybr="100"{}/>'


def cvat_file(path, shapes, labels="", size='width="240" height="160"', head='<?xml version="1.0"?>', more=""):
    """An export of CVAT with these shapes on the image 1.png, and more images."""
    head += f"<annotations><meta><labels>{labels}</labels></meta>" if labels else "<annotations>"
    path.write_text(f'{head}<image name="1.png" {size}>{shapes}</image>{more}</annotations>', encoding="utf-8")
    return path


def region(number, kind, value, **more):
    """A region of Label Studio on an image of 240 x 160 pixels."""
    return {"id": number, "type": kind, "value": value, "original_width": 240, "original_height": 160, **more}


def key_point(name="a", x=25.0, y=25.0, **more):
    """A key point of Label Studio, in percent of the image."""
    return region(name, "keypointlabels", {"x": x, "y": y, "width": 0.3, "keypointlabels": [name]}, **more)


def rectangle(number, label, x, y, width, height):
    """A rectangle of Label Studio, in percent of the image."""
    value = {"x": x, "y": y, "width": width, "height": height, "rotation": 0, "rectanglelabels": [label]}
    return region(number, "rectanglelabels", value)


def label_studio_file(path, *tasks):
    """An export of Label Studio: address of the image and regions of each task."""
    path.write_text(json.dumps([{"data": {"image": a}, "annotations": [{"result": result}]} for a, result in tasks]))
    return path


def rows(content, joints):
    """Image name and (K, 3) joints of each person."""
    names = {image["id"]: image["file_name"] for image in content["images"]}
    return [(names[row["image_id"]], np.array(row["keypoints"]).reshape(joints, 3)) for row in content["annotations"]]


def truth_of(data):
    """Image name, (K, 3) joints and box of each person of a valid set, in the order in which they are converted."""
    people = sorted(data.people, key=lambda row: (f"{row['image_id']}.png", row["id"]))
    return [
        (f"{row['image_id']}.png", np.array(row["keypoints"]).reshape(17, 3), np.array(row["bbox"])) for row in people
    ]


def put(person, joint, x, y, v=2):
    """Place a joint of a COCO person."""
    person["keypoints"][3 * joint : 3 * joint + 3] = [x, y, v]


def swap(person, one, other):
    """Exchange two joints of a COCO person."""
    keypoints = person["keypoints"]
    first, second = slice(3 * one, 3 * one + 3), slice(3 * other, 3 * other + 3)
    keypoints[first], keypoints[second] = keypoints[second], keypoints[first]
