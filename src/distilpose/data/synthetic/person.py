"""From a figure and an outfit to shapes in depth order."""

from __future__ import annotations

import numpy as np

from distilpose.data.synthetic.drawing import Canvas, Material, Shape, capsule, hull
from distilpose.data.synthetic.figure import FACE, SIDES, Figure, head_radii
from distilpose.data.synthetic.outfit import Outfit
from distilpose.skeleton import COCO_NAMES

_PAIRED = ("ear", "upper_arm", "forearm", "hand", "thigh", "shin", "foot")
PARTS = [
    "torso",
    "pelvis",
    "skirt",
    "neck",
    "head",
    "nose",
    "hair",
    *(f"{s}_{part}" for s in SIDES for part in _PAIRED),
]
# a joint is visible if one of these parts is topmost; the trunk counts only for joints that are not on its far side
_LIMB_PARTS = {
    "ear": ("ear",), "shoulder": ("upper_arm",), "elbow": ("upper_arm", "forearm"), "wrist": ("forearm", "hand"),
    "hip": ("thigh",), "knee": ("thigh", "shin"), "ankle": ("shin", "foot"),
}  # fmt: skip
_TRUNK_PARTS = {"shoulder": ("torso",), "hip": ("torso", "pelvis", "skirt")}
_RING = np.stack([np.cos(np.linspace(0, 2 * np.pi, 12, False)), np.sin(np.linspace(0, 2 * np.pi, 12, False))], 1)


class Person:
    """A figure placed in an image.

    Attributes:
        keypoints: (17, 2) pixel positions of COCO's joints.
        height: pixels of one body height.
    """

    def __init__(self, figure: Figure, outfit: Outfit, centre: np.ndarray, height: float):
        self.figure, self.outfit, self.centre, self.height = figure, outfit, centre, height
        self.keypoints = self.project(np.stack([figure.points[name] for name in COCO_NAMES]))

    def project(self, points: np.ndarray) -> np.ndarray:
        """(..., 3) viewer's axes to (..., 2) pixels, with a camera about four body heights away."""
        near = 4.0 / (4.0 - points[..., 2:])
        return self.centre + self.height * near * points[..., :2] * (1, -1)

    def draw(self, canvas: Canvas, index: int) -> None:
        """Paint all parts from far to near, under the labels of this person."""
        for _, name, shapes in sorted(self.parts(), key=lambda part: part[0]):
            for shape in shapes:
                canvas.paint(shape, label(index, name))
            if name == "head":
                self.draw_head(canvas, label(index, name))

    def parts(self) -> list[tuple[float, str, list[Shape]]]:
        """Every part as (depth, name, shapes from the skin outwards)."""
        points, body, outfit = self.figure.points, self.figure.body, self.outfit
        skin = Material(outfit.skin, outline=outfit.outline)
        shoes = Material(outfit.shoes, outline=outfit.outline)
        girth = body.girth
        parts = self._trunk()

        def limb(
            name: str, start: str, end: str, radii: tuple[float, float], cover: float, cloth: Material, lift: float
        ):
            shapes = []
            if cover < 1:
                shapes.append(self._capsule(points[start], points[end], radii, skin, bulge=0.08))
            if cover > 0:
                loose = (radii[0] * outfit.looseness, (radii[1] + 0.004) * outfit.looseness)
                reach = points[start] + min(cover, 1.0) * (points[end] - points[start])
                shapes.append(self._capsule(points[start], reach, loose, cloth))
            parts.append(((points[start][2] + points[end][2]) / 2 + lift, name, shapes))

        for side in SIDES:
            arm, leg = (0.031 * girth, 0.024 * girth, 0.018 * girth), (0.054 * girth, 0.037 * girth, 0.024 * girth)
            names = {part: f"{side}_{part}" for part in ("shoulder", "elbow", "wrist", "hip", "knee", "ankle")}
            # limbs beside the trunk have its depth: a small offset keeps hanging arms and standing legs in front
            limb(f"{side}_upper_arm", names["shoulder"], names["elbow"], arm[:2], outfit.sleeve, outfit.shirt, 0.012)
            limb(f"{side}_forearm", names["elbow"], names["wrist"], arm[1:], outfit.sleeve - 1, outfit.shirt, 0.014)
            limb(f"{side}_thigh", names["hip"], names["knee"], leg[:2], outfit.leg, outfit.bottoms, 0.0)
            limb(f"{side}_shin", names["knee"], names["ankle"], leg[1:], outfit.leg - 1, outfit.bottoms, -0.004)
            hand, wrist = points[f"{side}_hand"], points[names["wrist"]]
            fist = self._capsule(wrist, hand, (0.017 * girth, 0.021 * girth), skin)
            parts.append(((hand[2] + wrist[2]) / 2 + 0.013, f"{side}_hand", [fist]))
            ankle, toe = points[names["ankle"]], points[f"{side}_toe"]
            sole = self._capsule(ankle, toe, (0.028 * girth, 0.02 * girth), shoes)
            parts.append(((ankle[2] + toe[2]) / 2, f"{side}_foot", [sole]))
        return parts + self._head_parts(skin)

    def _trunk(self) -> list[tuple[float, str, list[Shape]]]:
        figure, body, outfit = self.figure, self.figure.body, self.outfit
        points, girth = figure.points, body.girth
        chest, pelvis = figure.chest, figure.pelvis
        loose = 0.5 + 0.5 * outfit.looseness
        hips = self._ring(points["pelvis"] + pelvis @ (0, -0.02, 0), pelvis, body.hip + 0.042 * girth, 0.07 * girth)
        belt = self._ring(points["pelvis"] + pelvis @ (0, 0.05, 0), pelvis, (body.hip + 0.036) * loose, 0.06 * girth)
        waist = self._ring(points["waist"], chest, 0.082 * girth * loose, 0.058 * girth * loose)
        ribs = self._ring(points["neck"] + chest @ (0, -0.09, 0), chest, body.shoulder * 0.9 * loose, 0.068 * girth)
        top = self._ring(points["neck"] + chest @ (0, -0.022, 0), chest, body.shoulder + 0.012, 0.04 * girth)
        collar = self._ring(points["neck"] + chest @ (0, 0.012, 0), chest, 0.036 * girth, 0.03 * girth)

        def trunk(name: str, rings: list[np.ndarray], start: np.ndarray, end: np.ndarray, cloth: Material, lift: float):
            polygon = hull(self.project(np.concatenate(rings)))
            ends = self.project(np.stack((start, end)))
            width = np.ptp(polygon @ _normal(ends[1] - ends[0])) / 2
            return (start[2] + end[2]) / 2 + lift, name, [Shape(polygon, ends[0], ends[1], float(width), cloth)]

        lower = trunk("pelvis", [hips, belt], points["waist"], points["pelvis"], outfit.bottoms, -0.006)
        belly = trunk("torso", [belt, waist, ribs], points["neck"], points["pelvis"], outfit.shirt, 0.0)
        upper = trunk("torso", [waist, ribs, top, collar], points["neck"], points["pelvis"], outfit.shirt, 0.0)
        parts = [lower, (upper[0], "torso", belly[2] + upper[2])]
        if outfit.skirt:
            hem = [
                self._ring(
                    points[f"{side}_hip"] + outfit.skirt * 0.6 * (points[f"{side}_knee"] - points[f"{side}_hip"]),
                    pelvis,
                    0.075 * girth,
                    0.075 * girth,
                )
                for side in SIDES
            ]
            middle = (points["left_knee"] + points["right_knee"]) / 2
            skirt = trunk("skirt", [belt, *hem], points["pelvis"], middle, outfit.bottoms, 0.01)
            # a skirt occludes both thighs, but not a hand on it
            nearest = max((points[f"{side}_hip"][2] + points[f"{side}_knee"][2]) / 2 for side in SIDES)
            parts.append((max(skirt[0], nearest + 0.002), "skirt", skirt[2]))
        return parts

    def _head_parts(self, skin: Material) -> list[tuple[float, str, list[Shape]]]:
        points, outfit, size = self.figure.points, self.outfit, self.figure.body.head
        head = points["head"]
        neck = self._capsule(points["neck"], head, (0.4 * size, 0.36 * size), skin)
        nose_root = head + self.figure.head @ (head_radii(self.figure.body) * (0, 0.05, 0.9))
        nose = self._capsule(nose_root, points["nose"], (0.06 * size, 0.13 * size), skin)
        parts = [
            ((points["neck"][2] + head[2]) / 2 - 0.03, "neck", [neck]),
            (head[2], "head", []),
            (points["nose"][2], "nose", [nose]),
        ]
        for side in SIDES:
            ear = points[f"{side}_ear"]
            lobe = ear + self.figure.head @ (0, -0.12 * size, 0)
            parts.append((ear[2], f"{side}_ear", [self._capsule(ear, lobe, (0.2 * size, 0.15 * size), skin)]))
        if outfit.hair_length:
            crown = head + self.figure.head @ (0, 0.1 * size, -0.35 * size)
            tips = head + self.figure.head @ (0, -outfit.hair_length * 1.25 * size, -0.55 * size)
            hair = Material(outfit.hair, outline=outfit.outline)
            parts.append((tips[2], "hair", [self._capsule(crown, tips, (0.78 * size, 0.55 * size), hair)]))
        return parts

    def draw_head(self, canvas: Canvas, part: int) -> None:
        """Ray-cast the head as an ellipsoid: the surface point of each pixel decides skin, hair, eye or mouth."""
        outfit, head = self.outfit, self.figure.head
        radii = head_radii(self.figure.body)
        centre = self.project(self.figure.points["head"])
        scale = self.height * 4.0 / (4.0 - self.figure.points["head"][2])
        spread = head @ np.diag(radii**2) @ head.T
        reach = scale * radii.max()
        window = canvas.window(np.stack((centre - reach, centre + reach)).astype(np.float32))
        if window is None:
            return
        rows, columns, xs, ys = window
        x, y = np.broadcast_arrays((xs - float(centre[0])) / float(scale), (float(centre[1]) - ys) / float(scale))
        inverse = np.linalg.inv(spread[:2, :2])
        radius = np.sqrt(inverse[0, 0] * x * x + 2 * inverse[0, 1] * x * y + inverse[1, 1] * y * y)
        mask = (255 * np.clip((1 - radius) * scale * radii.mean() + 0.5, 0, 1)).astype(np.uint8)

        # the near surface solves a quadratic in depth, whose vertex is `plane` and whose root vanishes on the rim
        shape = np.linalg.inv(spread)
        plane = -(shape[0, 2] * x + shape[1, 2] * y) / shape[2, 2]
        depth = plane + np.sqrt(np.clip(1 - radius * radius, 0, None) / shape[2, 2])
        left, up, forward = (np.stack([x, y, depth], -1) @ head / radii).transpose(2, 0, 1)

        sharp = max(2.0, scale * radii.mean() * 0.7)
        covered = _step(sharp * (0.55 * up - 0.75 * forward - outfit.fringe + 0.1 * np.cos(6 * left)))
        mouth = _step(sharp * (0.055 - np.abs(up + 0.5 - 0.25 * left * left))) * _step(sharp * (0.3 - np.abs(left)))
        colour = np.broadcast_to(outfit.skin, (*x.shape, 3))
        colour = _mix(colour, outfit.skin * (0.75, 0.4, 0.4), mouth * (forward > 0))
        colour = _mix(colour, outfit.hair, covered)
        for side in SIDES:
            eye = FACE[f"{side}_eye"] / np.linalg.norm(FACE[f"{side}_eye"])
            away = np.sqrt((left - eye[0]) ** 2 + 1.6 * (up - eye[1]) ** 2 + (forward - eye[2]) ** 2)
            colour = _mix(colour, np.array((242, 242, 240)), _step(sharp * (0.25 - away)))
            colour = _mix(colour, np.array((25, 20, 24)), _step(sharp * (0.14 - away)))
            brow = np.sqrt((left - eye[0]) ** 2 + 9 * (up - eye[1] - 0.3) ** 2 + (forward - eye[2]) ** 2)
            colour = _mix(colour, outfit.hair * 0.8, 0.8 * _step(sharp * (0.24 - brow)))
        slope = (x * canvas.light[0] - y * canvas.light[1]) / radii.mean()
        lit = 1.03 + 0.22 * slope - 0.22 * np.minimum(radius, 1) ** 4
        canvas.blend(rows, columns, mask, (colour * lit[..., None]).astype(np.float32), part)

    def visible(self, canvas: Canvas, index: int) -> np.ndarray:
        """(17,) bool: the joint is inside the image, and a part that it belongs to is topmost there."""
        height, width = canvas.labels.shape
        depth = self.figure.points
        seen = np.zeros(len(COCO_NAMES), bool)
        for joint, name in enumerate(COCO_NAMES):
            column, row = self.keypoints[joint].round().astype(int)
            if not (0 <= column < width and 0 <= row < height):
                continue
            side, _, bare = name.rpartition("_")
            if bare in ("nose", "eye"):
                normal = self.figure.head @ (FACE[name] / head_radii(self.figure.body))
                # a nose protrudes, so it is visible a little beyond profile
                least = -0.3 if bare == "nose" else 0.12
                parts = ["head", "nose"] if normal[2] > least * np.linalg.norm(normal) else []
            else:
                parts = [f"{side}_{part}" for part in _LIMB_PARTS[bare]]
                trunk_depth = (depth["neck"][2] + depth["pelvis"][2]) / 2 if bare == "hip" else depth["neck"][2]
                if depth[name][2] > trunk_depth - 0.035:
                    parts += _TRUNK_PARTS.get(bare, ())
            seen[joint] = canvas.labels[row, column] in [label(index, part) for part in parts]
        return seen

    def _capsule(self, start, end, radii, material: Material, bulge: float = 0.0) -> Shape:
        ends = self.project(np.array((start, end)))
        scale = self.height * 4.0 / (4.0 - float(start[2] + end[2]) / 2)
        return capsule(ends[0], ends[1], (radii[0] * scale, radii[1] * scale), material, bulge)

    @staticmethod
    def _ring(centre: np.ndarray, frame: np.ndarray, half_width: float, half_depth: float) -> np.ndarray:
        return centre + _RING[:, :1] * half_width * frame[:, 0] + _RING[:, 1:] * half_depth * frame[:, 2]


def label(index: int, part: str) -> int:
    """The canvas label of a part of the person with that index in the image."""
    return (index + 1) * 32 + PARTS.index(part)


def silhouette(canvas: Canvas, index: int) -> np.ndarray:
    """(H, W) bool: pixels whose topmost part belongs to that person."""
    return canvas.labels >> 5 == index + 1


def _normal(axis: np.ndarray) -> np.ndarray:
    return np.array((-axis[1], axis[0])) / max(float(np.hypot(*axis)), 1e-6)


def _step(distance: np.ndarray) -> np.ndarray:
    return np.clip(distance + 0.5, 0, 1)


def _mix(colour: np.ndarray, other: np.ndarray, share: np.ndarray) -> np.ndarray:
    return colour + share[..., None] * (other - colour)
