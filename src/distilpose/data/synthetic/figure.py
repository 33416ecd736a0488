"""An articulated body in three dimensions: proportions, joint limits, poses and forward kinematics.

Axes: x to the viewer's right, y up, z towards the viewer. A figure that faces the viewer (yaw 0) therefore has its left
side at larger x. Lengths are shares of the body height, angles are degrees, the pelvis is the origin.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

SIDES = {"left": 1.0, "right": -1.0}

# lower and upper limit of every joint angle; all zero is standing upright with hanging arms
LIMITS = {
    "spine_bend": (-30, 85), "spine_lean": (-30, 30), "spine_twist": (-35, 35),
    "head_pitch": (-40, 45), "head_yaw": (-70, 70), "head_tilt": (-30, 30),
} | {
    f"{side}_{name}": bounds
    for side in SIDES
    for name, bounds in {
        "arm_flexion": (-50, 175), "arm_abduction": (-15, 170), "arm_twist": (-80, 80), "elbow": (0, 145),
        "leg_flexion": (-30, 125), "leg_abduction": (-12, 65), "leg_twist": (-30, 45), "knee": (0, 145),
        "foot": (-30, 45),
    }.items()
}  # fmt: skip

# mean and standard deviation of each angle: in the default pose, then those that a family of poses replaces; left and right
# are independent
_RESTING = {
    "spine_bend": (4, 7), "spine_lean": (0, 5), "spine_twist": (0, 9), "head_pitch": (3, 12), "head_yaw": (0, 24),
    "head_tilt": (0, 8), "arm_flexion": (4, 18), "arm_abduction": (12, 9), "arm_twist": (0, 30), "elbow": (18, 22),
    "leg_flexion": (2, 6), "leg_abduction": (5, 5), "leg_twist": (5, 8), "knee": (5, 6), "foot": (0, 6),
}  # fmt: skip
FAMILIES: dict[str, dict[str, tuple[float, float]]] = {
    "stand": {},
    "gesture": {"arm_flexion": (50, 45), "arm_abduction": (25, 28), "arm_twist": (20, 40), "elbow": (85, 40)},
    "stride": {"spine_bend": (8, 8), "elbow": (35, 35)},
    "sit": {"leg_flexion": (85, 12), "knee": (85, 22), "leg_abduction": (12, 10), "arm_flexion": (30, 25),
            "elbow": (50, 30)},
    "squat": {"leg_flexion": (100, 16), "knee": (115, 18), "spine_bend": (30, 15), "arm_flexion": (55, 30),
              "leg_abduction": (20, 12), "foot": (20, 10)},
    "arms_up": {"arm_flexion": (15, 30), "arm_abduction": (135, 28), "elbow": (30, 32), "leg_abduction": (9, 8)},
    "jump": {"arm_abduction": (95, 42), "leg_abduction": (28, 18), "leg_flexion": (20, 30), "knee": (45, 38),
             "foot": (-25, 8)},
    "bow": {"spine_bend": (58, 18), "arm_flexion": (65, 30), "leg_flexion": (12, 12), "knee": (20, 20),
            "head_pitch": (-5, 20)},
    "dance": {"spine_bend": (8, 22), "spine_lean": (0, 15), "spine_twist": (0, 18), "arm_flexion": (40, 60),
              "arm_abduction": (60, 50), "elbow": (60, 42), "leg_flexion": (30, 42), "leg_abduction": (20, 20),
              "knee": (45, 42)},
}  # fmt: skip
_FAMILY_WEIGHTS = {
    "stand": 3, "gesture": 3, "stride": 4, "sit": 2, "squat": 1.5, "arms_up": 2, "jump": 1.5, "bow": 1.2, "dance": 2,
}  # fmt: skip


@dataclass(frozen=True)
class Body:
    """Lengths of one body, as shares of its height. Widths and depths are half widths; `girth` scales limb thickness."""

    head: float = 0.072
    neck: float = 0.045
    spine: float = 0.27
    shoulder: float = 0.112
    hip: float = 0.056
    upper_arm: float = 0.165
    forearm: float = 0.145
    hand: float = 0.062
    thigh: float = 0.245
    shin: float = 0.235
    foot: float = 0.1
    girth: float = 1.0


@dataclass(frozen=True)
class Figure:
    """A posed body in the viewer's frame.

    Attributes:
        body: the lengths it was built with.
        points: joints and other landmarks (pelvis, neck, head centre, hands, toes), each (3,).
        pelvis: (3, 3) orientation; the columns are left, up and forward.
        chest: (3, 3) orientation.
        head: (3, 3) orientation.
    """

    body: Body
    points: dict[str, np.ndarray]
    pelvis: np.ndarray
    chest: np.ndarray
    head: np.ndarray


def sample_body(rng: np.random.Generator) -> Body:
    """A body of random build; one in six is a child, with a larger head and shorter legs."""
    factors = np.clip(rng.normal(1, 0.06, len(fields(Body))), 0.85, 1.15).tolist()
    lengths = {field.name: field.default * factor for field, factor in zip(fields(Body), factors, strict=True)}
    lengths["girth"] *= rng.uniform(0.8, 1.3)
    if rng.random() < 1 / 6:
        for name, factor in {"head": 1.35, "thigh": 0.86, "shin": 0.86, "upper_arm": 0.92, "girth": 1.1}.items():
            lengths[name] *= factor
    return Body(**lengths)


def sample_pose(rng: np.random.Generator, variety: float = 1.0) -> dict[str, float]:
    """Joint angles in degrees, within `LIMITS`, of a random family of movements.

    A variety below 1 moves every angle towards the default pose; at 0 all persons have the default pose.
    """
    names = list(_FAMILY_WEIGHTS)
    weights = np.array(list(_FAMILY_WEIGHTS.values()))
    family = names[rng.choice(len(names), p=weights / weights.sum())]
    centres = _RESTING | FAMILIES[family]
    means, spreads = zip(*(centres[name.removeprefix("left_").removeprefix("right_")] for name in LIMITS), strict=True)
    pose = dict(zip(LIMITS, rng.normal(means, spreads).tolist(), strict=True))
    if family == "stride":
        # one phase drives both legs and, with opposite sign, both arms: a small swing is walking, a large one running
        swing, forward = rng.uniform(12, 50), rng.choice(list(SIDES))
        for side in SIDES:
            sign = 1 if side == forward else -1
            pose[f"{side}_leg_flexion"] += sign * swing * (1 if sign > 0 else 0.6)
            pose[f"{side}_knee"] += abs(rng.normal(0, swing)) * (1.0 if sign < 0 else 0.6)
            pose[f"{side}_arm_flexion"] -= sign * swing * 0.9
            pose[f"{side}_elbow"] += swing * 0.9
    for name, angle in pose.items():
        ease = _RESTING[name.removeprefix("left_").removeprefix("right_")][0]
        pose[name] = min(max(ease + variety * (angle - ease), LIMITS[name][0]), LIMITS[name][1])
    return pose


def sample_view(rng: np.random.Generator, variety: float = 1.0) -> np.ndarray:
    """(3, 3) orientation of the pelvis: any heading, mostly upright, one in ten lying, falling or upside down.

    `variety` scales the angles.
    """
    yaw = rng.normal(0, 45) if rng.random() < 0.4 else rng.uniform(-180, 180)
    tilted = rng.random() < 0.1 * variety
    roll = rng.uniform(-180, 180) if tilted else rng.normal(0, 7)
    pitch = rng.normal(0, 25) if tilted else rng.normal(8, 9)
    return rotation("z", variety * roll) @ rotation("x", variety * pitch) @ rotation("y", variety * yaw)


def rotation(axis: str, degrees: float) -> np.ndarray:
    """(3, 3) right-handed rotation about x, y or z."""
    cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    i, j = {"x": (1, 2), "y": (2, 0), "z": (0, 1)}[axis]
    matrix = np.eye(3)
    matrix[i, i] = matrix[j, j] = cos
    matrix[i, j], matrix[j, i] = -sin, sin
    return matrix


def build_figure(body: Body, pose: dict[str, float], view: np.ndarray) -> Figure:
    """Forward kinematics from the pelvis outwards.

    Args:
        body: lengths.
        pose: an angle in degrees for every name of `LIMITS`.
        view: (3, 3) orientation of the pelvis; the identity is upright and faces the viewer.
    """
    pelvis = view
    # half of the spine's rotation is below the waist and half above it, so that a bent spine is curved
    half = (
        rotation("y", pose["spine_twist"] / 2)
        @ rotation("z", pose["spine_lean"] / 2)
        @ rotation("x", pose["spine_bend"] / 2)
    )
    waist, chest = pelvis @ half, pelvis @ half @ half
    head = (
        chest @ rotation("y", pose["head_yaw"]) @ rotation("x", pose["head_pitch"]) @ rotation("z", pose["head_tilt"])
    )
    points = {"pelvis": np.zeros(3)}
    points["waist"] = waist @ (0, 0.38 * body.spine, 0)
    points["neck"] = points["waist"] + chest @ (0, 0.62 * body.spine, 0)
    points["head"] = points["neck"] + head @ (0, body.neck + 0.8 * body.head, 0.15 * body.head)
    for side, sign in SIDES.items():
        upper = (
            chest
            @ rotation("z", sign * pose[f"{side}_arm_abduction"])
            @ rotation("x", -pose[f"{side}_arm_flexion"])
            @ rotation("y", -sign * pose[f"{side}_arm_twist"])
        )
        fore = upper @ rotation("x", -pose[f"{side}_elbow"])
        points[f"{side}_shoulder"] = points["neck"] + chest @ (sign * body.shoulder, -0.025, 0)
        points[f"{side}_elbow"] = points[f"{side}_shoulder"] + upper @ (0, -body.upper_arm, 0)
        points[f"{side}_wrist"] = points[f"{side}_elbow"] + fore @ (0, -body.forearm, 0)
        points[f"{side}_hand"] = points[f"{side}_wrist"] + fore @ (0, -body.hand, 0)

        thigh = (
            pelvis
            @ rotation("x", -pose[f"{side}_leg_flexion"])
            @ rotation("z", sign * pose[f"{side}_leg_abduction"])
            @ rotation("y", sign * pose[f"{side}_leg_twist"])
        )
        shin = thigh @ rotation("x", pose[f"{side}_knee"])
        foot = shin @ rotation("x", -pose[f"{side}_foot"])
        points[f"{side}_hip"] = pelvis @ (sign * body.hip, -0.01, 0)
        points[f"{side}_knee"] = points[f"{side}_hip"] + thigh @ (0, -body.thigh, 0)
        points[f"{side}_ankle"] = points[f"{side}_knee"] + shin @ (0, -body.shin, 0)
        points[f"{side}_toe"] = points[f"{side}_ankle"] + foot @ (0, -0.035, body.foot)

    radii = head_radii(body)
    for name, place in FACE.items():
        points[name] = points["head"] + head @ (radii * place)
    return Figure(body, points, pelvis, chest, head)


# landmarks of the head, in units of its half axes: left, up, forward
FACE = {
    "nose": np.array((0.0, -0.12, 1.14)),
    "left_eye": np.array((0.42, 0.14, 0.9)),
    "right_eye": np.array((-0.42, 0.14, 0.9)),
    "left_ear": np.array((1.0, -0.02, -0.08)),
    "right_ear": np.array((-1.0, -0.02, -0.08)),
}


def head_radii(body: Body) -> np.ndarray:
    """(3,) half axes of the head: left, up, forward."""
    return body.head * np.array((0.78, 1.0, 0.9))
