"""Check of left-right pairs before a training."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from distilpose.data.annotations import KeypointAnnotations
from distilpose.data.augmentation import PoseAugmentation
from distilpose.errors import DistilPoseError
from distilpose.skeleton import Skeleton

log = logging.getLogger(__name__)


def check_flip_pairs(
    train: KeypointAnnotations,
    val: KeypointAnnotations,
    chosen: Skeleton | Mapping[str, Any] | None,
    augmentation: PoseAugmentation | None,
) -> None:
    """Check that mirrored views get the right sides, with a warning if they swap no joints.

    Args:
        train: training split.
        val: validation split, with the same joints.
        chosen: data.skeleton, which may set the pairs.
        augmentation: views of the training crops.

    Raises:
        DistilPoseError: joints have a side but no counterpart, or the two files have different pairs.
    """
    skeleton, other = train.skeleton, val.skeleton
    if set(skeleton.flip_pairs) != set(other.flip_pairs):
        raise DistilPoseError(
            f"The {len(skeleton.flip_pairs)} flip pairs of {train.path} differ from the {len(other.flip_pairs)} of {val.path}, "
            "which has the same joints: correct 'flip_pairs' in the files, or give data.skeleton.flip_pairs=[[0,1],...]."
        )
    if isinstance(chosen, Skeleton) or (chosen or {}).get("flip_pairs") is not None:
        return
    if not getattr(augmentation, "flip_prob", 0) > 0:
        return
    if not skeleton.flip_pairs and not skeleton.unpaired:
        log.warning(
            f"Mirrored views swap none of the {skeleton.num_keypoints} joints, as their names state no pairs: correct for an "
            "object without sides, wrong for a body (data.skeleton.flip_pairs sets pairs, augmentation.flip_prob=0 mirrors "
            "nothing)."
        )
    if skeleton.unpaired:
        raise DistilPoseError(
            f"{len(skeleton.unpaired)} joints of {train.path} are left or right by their name and have no counterpart "
            f"({', '.join(skeleton.unpaired[:3])}), so mirrored views would teach a wrong side: name both sides alike; or set "
            f"data.skeleton.flip_pairs, by the names {[list(pair) for pair in skeleton.flip_pairs]}; or give "
            "augmentation.flip_prob=0."
        )
