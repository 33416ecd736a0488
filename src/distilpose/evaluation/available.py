"""Which metrics of a validation have a value: a monitor without one would select the first checkpoint for good."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from pycocotools.coco import COCO

from distilpose.data.units import area_of
from distilpose.errors import DistilPoseError
from distilpose.evaluation.coco_ap import COCO_METRICS
from distilpose.evaluation.orientation import is_upright
from distilpose.evaluation.pck import allowed_distance, torso_diagonals
from distilpose.evaluation.protocol import persons_of, truth_of

if TYPE_CHECKING:
    from distilpose.data.coco import CocoKeypoints

# smallest and largest area in COCO's metrics of medium and of large persons, in square pixels; both count
AREAS = {"M": (32.0**2, 96.0**2), "L": (96.0**2, 1e5**2)}


def persons_by_metric(dataset: CocoKeypoints, complete: COCO | None = None) -> dict[str, int]:
    """Number of persons that each metric of a validation is over; 0 for a metric without a value.

    Args:
        dataset: persons in ground-truth boxes.
        complete: its annotation file, if it is already loaded.
    """
    people, skeleton = dataset.instances, dataset.skeleton
    target, labelled = torch.from_numpy(people.keypoints), torch.from_numpy(people.labelled)
    boxes = torch.from_numpy(people.boxes)
    counts: dict[str, int] = {}
    if skeleton.sigmas is not None:
        persons = persons_of(truth_of(dataset, complete=complete), dataset.category_id)
        areas = [area_of(person) for person in persons]
        sizes = {size: sum(low <= area <= high for area in areas) for size, (low, high) in AREAS.items()}
        counts = {name: sizes.get(name[-1], len(areas)) for name in COCO_METRICS}
    known = labelled.any(-1)
    measured = known & (allowed_distance(target, labelled, boxes, skeleton)[0] > 0)
    counts["PCK"] = int(measured.sum())
    if torso_diagonals(skeleton) is not None:
        upright, oriented = is_upright(target, labelled, skeleton)
        counts["PCK_box"] = int((known & (allowed_distance(target, labelled, boxes, skeleton, True)[0] > 0)).sum())
        counts["PCK_upright"] = int((measured & upright).sum())
        counts["PCK_other"] = int((measured & oriented & ~upright).sum())
    return counts


def check_monitored(monitor: str, counts: dict[str, int], source: object) -> None:
    """Raise for a metric of a validation that has no value on its persons.

    Args:
        monitor: name of the monitored metric, such as val/PCK; others than those of `counts` are not checked.
        counts: result of `persons_by_metric`.
        source: the annotation file, for the message.
    """
    if counts.get(monitor.removeprefix("val/")) != 0:
        return
    reasons = {
        "PCK": "no person has a labelled shoulder and the opposite hip, which PCK measures by",
        "PCK_upright": "no person with a labelled torso is upright",
        "PCK_other": "no person with a labelled torso is other than upright",
    }
    why = reasons.get(monitor.removeprefix("val/"), "there are no persons of that size")
    meanings = {"PCK_box": " (PCK by the size of the box)"}
    present = ", ".join(f"val/{name}{meanings.get(name, '')}" for name, count in counts.items() if count)
    raise DistilPoseError(
        f"The monitored metric {monitor} has no value on {source}: {why}. Monitor one that has, by data.monitor: {present}."
    )
