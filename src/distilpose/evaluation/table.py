"""Rows of the evaluate command's table, and notes on the persons that their metrics are over."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from distilpose.evaluation.pck import PCK
from distilpose.evaluation.protocol import Evaluation

if TYPE_CHECKING:
    from distilpose.data.coco import CocoKeypoints


def table_row(model: str, protocol: Mapping[str, str], result: Evaluation, dataset: CocoKeypoints) -> dict[str, Any]:
    """Metrics of one model and protocol. With ground-truth boxes: also PCK of each joint, and PCK by orientation."""
    row: dict[str, Any] = {"model": model, **protocol, "persons": len(dataset)}
    if result.persons < result.of_persons:
        row["of_persons"] = result.of_persons
    row |= result.metrics
    if result.pck is None:
        return row
    pck = _by_name(result.pck, dataset)
    if result.oriented is not None:
        row |= {"PCK up": result.oriented.upright.value, "PCK other": result.oriented.other.value}
        pck["upright"], pck["not_upright"] = (_by_name(part, dataset) for part in result.oriented)
    return {**row, "pck": pck}


def as_printed(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row of the printed table, which says if the metrics are over a part of the persons only."""
    total = row.get("of_persons")
    return {**row} if total is None else {**row, "persons": f"{row['persons']} of {total}"}


def notes_on_persons(row: Mapping[str, Any]) -> list[str]:
    """Sentences on the persons that the metrics of a row are over, from a row with ground-truth boxes."""
    pck = row["pck"]
    notes = [f"PCK is at {pck['reference']}: {pck['persons']} persons, {pck['left_out']} left out."]
    if "PCK_box" in row and not pck["persons"]:
        notes[0] += f" At 0.1 of the box's longer side it is {100 * row['PCK_box']:.1f}."
    if "of_persons" in row:
        notes.append(f"All figures are on {row['persons']} of {row['of_persons']} persons (data.limit_val).")
    if "upright" in pck:
        up, other = pck["upright"]["persons"], pck["not_upright"]["persons"]
        notes.append(f"PCK up: {up} persons whose torso points up within 45 degrees. PCK other: {other} others.")
    return notes


def _by_name(pck: PCK, dataset: CocoKeypoints) -> dict[str, Any]:
    """PCK as a dictionary, with the joints by name."""
    return {**pck._asdict(), "per_joint": dict(zip(dataset.skeleton.names, pck.per_joint.tolist(), strict=True))}
