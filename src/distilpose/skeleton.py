"""The skeleton of an annotation set: names, left-right pairs, limbs, OKS sigmas, upper and lower body.

All but the limbs can be derived from the names. Therefore COCO's 17 joints, Leeds Sports' 14 and the joints of other sets are
read from the category in the annotation file.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import Any

from distilpose.errors import DistilPoseError
from distilpose.joint_names import JointName, Side, pairs_of, split_names
from distilpose.skeleton_fields import checked_pairs, limbs_of, log_override, numbered_pairs

COCO_NAMES = (
    "nose", "left_eye", "right_eye", "left_ear", "right_ear", "left_shoulder", "right_shoulder", "left_elbow",
    "right_elbow", "left_wrist", "right_wrist", "left_hip", "right_hip", "left_knee", "right_knee", "left_ankle",
    "right_ankle",
)  # fmt: skip
COCO_LIMBS = (
    (15, 13), (13, 11), (16, 14), (14, 12), (11, 12), (5, 11), (6, 12), (5, 6), (5, 7), (6, 8), (7, 9), (8, 10),
    (1, 2), (0, 1), (0, 2), (1, 3), (2, 4), (3, 5), (4, 6),
)  # fmt: skip

# OKS sigmas by joint, the same for left and right: from COCO, and from CrowdPose for head and neck, which COCO lacks
KNOWN_SIGMAS = {
    "nose": 0.026, "eye": 0.025, "ear": 0.035, "shoulder": 0.079, "elbow": 0.072, "wrist": 0.062, "hip": 0.107,
    "knee": 0.087, "ankle": 0.089, "head_top": 0.079, "head": 0.079, "neck": 0.079,
}  # fmt: skip
_SIGMAS = {part.replace("_", ""): sigma for part, sigma in KNOWN_SIGMAS.items()}

_LOWER_BODY = re.compile(r"hip|knee|ankle|foot|heel|toe|leg|thigh|shin")


@dataclass(frozen=True)
class Skeleton:
    """Joints of one kind of body.

    Attributes:
        names: K joint names, in the order of the annotation file.
        flip_pairs: index pairs that are swapped in a mirrored image.
        limbs: index pairs to join by a line when drawing.
        sigmas: K OKS constants; None if the set has none (evaluate by PCK instead).
        upper_body: indices of the upper half, for half-body augmentation; the other joints are the lower half.
    """

    names: tuple[str, ...]
    flip_pairs: tuple[tuple[int, int], ...]
    limbs: tuple[tuple[int, int], ...]
    sigmas: tuple[float, ...] | None
    upper_body: tuple[int, ...]

    def __post_init__(self):
        """Check names, indices and sigmas, which come from annotation files and configurations."""
        count = len(self.names)
        if len(set(self.names)) != count:
            duplicates = sorted({name for name in self.names if self.names.count(name) > 1})
            raise DistilPoseError(f"Keypoint names must be unique, but {duplicates} occur more than once.")
        paired = list(chain.from_iterable(self.flip_pairs))
        for field, indices in {
            "flip_pairs": paired, "limbs": chain.from_iterable(self.limbs), "upper_body": self.upper_body
        }.items():  # fmt: skip
            if not all(0 <= index < count for index in indices):
                raise DistilPoseError(f"Skeleton {field} {getattr(self, field)} must hold indices in 0..{count - 1}.")
        if len(set(paired)) != len(paired):
            raise DistilPoseError(f"Skeleton flip_pairs {list(self.flip_pairs)} name a joint twice.")
        if self.sigmas is not None and (len(self.sigmas) != count or not all(sigma > 0 for sigma in self.sigmas)):
            raise DistilPoseError(f"Skeleton sigmas must be {count} positive numbers, one a joint, got {self.sigmas}.")

    @property
    def num_keypoints(self) -> int:
        """K."""
        return len(self.names)

    @property
    def flip_order(self) -> list[int]:
        """Order of the joints in a mirrored image: `mirrored[k]` is `original[flip_order[k]]`."""
        order = list(range(self.num_keypoints))
        for left, right in self.flip_pairs:
            order[left], order[right] = right, left
        return order

    @cached_property
    def joints(self) -> list[JointName]:
        """Side and part of the body of each joint, by its name."""
        return split_names(self.names)

    @property
    def sides(self) -> list[Side]:
        """Side of each joint by its name: left, right or centre."""
        return [joint.side for joint in self.joints]

    @property
    def unpaired(self) -> list[str]:
        """Names of the joints that are left or right by their name and are in no flip pair."""
        paired = set(chain.from_iterable(self.flip_pairs))
        return [name for k, name in enumerate(self.names) if self.joints[k].side != "centre" and k not in paired]

    def pair_of(self, part: str) -> list[int] | None:
        """Indices of the left and the right joint of a part of the body, None if no joints have such names.

        Joints called exactly so come first: a hip, not a hip_marker.
        """
        for fits in (part.__eq__, lambda name: part in name):
            found: dict[str, dict[str, int]] = {}
            for index, (side, name) in enumerate(self.joints):
                if side != "centre" and fits(name):
                    found.setdefault(name, {}).setdefault(side, index)
            for sides in found.values():
                if len(sides) == 2:
                    return [sides["left"], sides["right"]]
        return None

    def describe_pairs(self) -> str:
        """The flip pairs in words, for the log."""
        if not self.flip_pairs:
            return f"No flip pairs: none of the {self.num_keypoints} joints has a left or right counterpart"
        count = len(self.flip_pairs)
        pairs = ", ".join(f"{self.names[a]} / {self.names[b]}" for a, b in self.flip_pairs)
        return f"{count} flip pair{'' if count == 1 else 's'}: {pairs}"

    def matching(self, other: Skeleton) -> list[int | None]:
        """Match joints by name: for each joint of this skeleton the index in `other`, or None if `other` lacks it.

        Equal names match. Others are compared as their side and the rest, so that left_hip, LeftHip, lhip and hip.L are the
        same joint.
        """
        names = split_names((*self.names, *other.names))  # together: the counterpart may be in the other set only
        own, others = names[: self.num_keypoints], names[self.num_keypoints :]
        equal = {name: index for index, name in enumerate(other.names)}
        alike: dict[tuple[Side, str], int] = {}
        for index, joint in enumerate(others):
            alike.setdefault(joint.key, index)
        return [equal.get(name, alike.get(joint.key)) for name, joint in zip(self.names, own, strict=True)]

    @classmethod
    def from_names(
        cls,
        names: Sequence[str],
        limbs: Sequence[Sequence[int]] | None = None,
        flip_pairs: Sequence[Sequence[int]] | None = None,
        sigmas: Sequence[float] | None = None,
        upper_body: Sequence[int] | None = None,
    ) -> Skeleton:
        """A skeleton from joint names; the other fields are derived from them unless they are given.

        Args:
            names: K joint names.
            limbs: index pairs counted from 0; none if not given.
            flip_pairs: index pairs; by default joints whose names differ only in left and right.
            sigmas: K OKS constants; by default those of COCO and CrowdPose if every name is known there, else None.
            upper_body: indices; by default all joints that are not hips, legs or feet.
        """
        names = tuple(str(name) for name in names)
        joints = split_names(names)
        if flip_pairs is None:
            flip_pairs = pairs_of(joints)
        if sigmas is None:
            known = [known_sigma(joint) for joint in joints]
            sigmas = None if None in known else [value for value in known if value is not None]
        if upper_body is None:
            upper_body = [i for i, joint in enumerate(joints) if not _LOWER_BODY.search(joint.part)]
        return cls(
            names,
            tuple((int(a), int(b)) for a, b in flip_pairs),
            tuple((int(a), int(b)) for a, b in limbs or ()),
            None if sigmas is None else tuple(float(value) for value in sigmas),
            tuple(int(index) for index in upper_body),
        )

    @classmethod
    def from_category(cls, category: Mapping[str, Any], **overrides: Any) -> Skeleton:
        """The skeleton of a COCO category: its 'keypoints' and, if present, its 'skeleton' (limbs, see `limbs_of`).

        Its 'OKS_sigmas', if present, replace those derived from the names. Its 'flip_pairs' (joints counted from 0) are
        compared with the names, see `checked_pairs`.

        Args:
            category: an entry of the annotation file's 'categories'.
            **overrides: flip_pairs, sigmas or upper_body, which replace the category's; None is ignored.

        Raises:
            DistilPoseError: a field is missing or wrong, the category's flip_pairs contradict the names, or the sigmas are
                a multiple of COCO's.
        """
        names = category.get("keypoints")
        if not names:
            raise DistilPoseError(
                f"Category {category.get('name', category.get('id'))!r} lists no 'keypoints': "
                "a keypoint annotation file names its joints there."
            )
        names = [str(name) for name in names]
        limbs = limbs_of(names, category.get("skeleton") or ())
        fields: dict[str, Any] = {"sigmas": category.get("OKS_sigmas")}
        if category.get("flip_pairs") is not None and overrides.get("flip_pairs") is None:
            fields["flip_pairs"] = checked_pairs(names, category["flip_pairs"])
        elif overrides.get("flip_pairs") is not None:
            overrides["flip_pairs"] = numbered_pairs(names, overrides["flip_pairs"])
            log_override(names, overrides["flip_pairs"])
        fields |= {name: value for name, value in overrides.items() if value is not None}
        if fields["sigmas"] is not None:
            _check_sigmas(names, fields["sigmas"])
        return cls.from_names(names, limbs=limbs, **fields)

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Skeleton:
        """The inverse of `to_dict`."""
        return cls.from_names(**fields)

    def to_dict(self) -> dict[str, Any]:
        """Plain lists, strings and numbers, for checkpoints and JSON."""
        return {
            "names": list(self.names),
            "limbs": [list(pair) for pair in self.limbs],
            "flip_pairs": [list(pair) for pair in self.flip_pairs],
            "sigmas": None if self.sigmas is None else list(self.sigmas),
            "upper_body": list(self.upper_body),
        }

    @classmethod
    def unnamed(cls, num_keypoints: int) -> Skeleton:
        """COCO's skeleton for 17 joints; otherwise joints called joint_0, joint_1, … with no pairs, limbs or sigmas."""
        if num_keypoints == len(COCO_NAMES):
            return COCO
        return cls.from_names([f"joint_{index}" for index in range(num_keypoints)])


def known_sigma(joint: JointName) -> float | None:
    """OKS sigma of a joint in COCO or CrowdPose, None if neither has it."""
    return _SIGMAS.get(joint.key[1])


def _check_sigmas(names: Sequence[str], sigmas: Sequence[float]) -> None:
    """Raise on ten times COCO's sigmas, as in pycocotools' source, or twice, as in OKS; two values may be so by chance."""
    known = [known_sigma(joint) for joint in split_names(names)]
    ratios = {round(float(given) / own, 2) for given, own in zip(sigmas, known, strict=False) if own is not None}
    if None not in known and len(sigmas) == len(known) and len({*known}) > 2 and ratios in ({10.0}, {2.0}):
        (ratio,) = ratios
        raise DistilPoseError(
            f"The OKS sigmas {list(sigmas)[:3]}, … are {ratio:g} times those of COCO for all {len(known)} joints, so AP would "
            f"be too high: divide them by {ratio:g}, or leave them out."
        )


COCO = Skeleton.from_names(COCO_NAMES, COCO_LIMBS)
