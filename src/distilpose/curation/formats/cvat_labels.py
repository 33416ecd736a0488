"""Labels at the start of a CVAT export: joints and limbs of a skeleton."""

from __future__ import annotations

import html
import re
import xml.etree.ElementTree as ElementTree
from typing import Any

from distilpose.curation.conversion.source import Source
from distilpose.errors import DistilPoseError


def read_labels(element: ElementTree.Element, source: Source) -> dict[str, Any]:
    """Joints and limbs of the skeleton label, empty if there is none. --category chooses one of several.

    Raises:
        DistilPoseError: there are several, and none is chosen.
    """
    labels = [(_text(label, "name"), _text(label, "type"), label) for label in element.findall("label")]
    joints: dict[str, list[str]] = {name: [] for name, kind, _ in labels if kind == "skeleton"}
    for name, kind, label in labels:
        if kind != "skeleton" and (parent := _text(label, "parent")) in joints:
            joints[parent].append(name)
        if name in joints:
            joints[name] += [_text(joint, "name") for joint in label.iterfind("sublabels/label")]
    if source.category is not None:
        joints = {name: names for name, names in joints.items() if name == source.category}
    if len(joints) > 1:
        raise DistilPoseError(f"{source.path} has several skeletons ({', '.join(joints)}): choose one by --category.")
    drawings = {name: _text(label, "svg") for name, kind, label in labels if kind == "skeleton"}
    for name, names in joints.items():
        if names:
            return {"keypoints": names, "skeleton": _limbs(drawings[name], names, source)}
    return {}


def _text(label: ElementTree.Element, name: str) -> str:
    return (label.findtext(name) or "").strip()


def _limbs(drawing: str, joints: list[str], source: Source) -> list[list[int]]:
    """Limbs from the edges of the drawing. Its nodes have the names of joints, or numbers from 1 if none has a name."""
    tags = re.findall(r"<[^<>]*>", html.unescape(drawing))
    nodes = {_value(tag, "node-id"): _value(tag, "label-name") for tag in tags}
    numbers = {name: number for number, name in enumerate(joints, start=1)}
    places = {node: numbers[name] for node, name in nodes.items() if node and name in numbers}
    places = places or {str(number): number for number in numbers.values()}
    edges = [(_value(tag, "node-from"), _value(tag, "node-to")) for tag in tags]
    limbs = [(places.get(start), places.get(end)) for start, end in edges if start and end]
    if any(None in limb for limb in limbs):
        source.notes.append("The drawing of the skeleton has joints that the skeleton lacks: written without limbs.")
        return []
    return [[start, end] for start, end in limbs if start and end]


def _value(tag: str, name: str) -> str | None:
    match = re.search(rf"""\bdata-{name}=(["'])(.*?)\1""", tag)
    return None if match is None else match[2].strip()
