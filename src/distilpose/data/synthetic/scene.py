"""A synthetic image: a cluttered background, one or a few persons, occluding objects, and camera noise."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np

from distilpose.data.synthetic.drawing import Canvas, Material, Shape, capsule, hull
from distilpose.data.synthetic.figure import build_figure, sample_body, sample_pose, sample_view
from distilpose.data.synthetic.outfit import sample_outfit
from distilpose.data.synthetic.person import Person, silhouette

_OBSTACLE = 1 << 20  # canvas label of occluding objects
_FACE_JOINTS = slice(0, 5)
# a person of whom a smaller share is visible has a box but no joints, like barely visible persons in COCO
_MIN_VISIBLE_SHARE = 0.3
# probability that an occluded joint has no label, for the body and for the face
_UNLABELLED, _UNLABELLED_FACE = 0.12, 0.75


def draw_scene(
    rng: np.random.Generator, size: int, max_persons: int, variety: float = 1.0
) -> tuple[np.ndarray, list[dict[str, Any]]]:
    """Draw one image.

    Args:
        rng: random generator that decides everything.
        size: width and height in pixels.
        max_persons: largest number of persons; fewer are more likely.
        variety: variety of poses, views and clutter, 0 to 1.

    Returns:
        The image (size, size, 3) uint8 RGB, and a COCO annotation without ids for each person: keypoints,
        num_keypoints, bbox, area, segmentation and iscrowd.
    """
    angle = rng.uniform(0, 2 * np.pi)
    canvas = Canvas(background(rng, size, variety), np.array((np.cos(angle), np.sin(angle))))
    clutter(canvas, rng, round(variety * rng.integers(3, 9)), 0)

    chances = 1 / np.arange(1, max_persons + 1)
    persons = _place_persons(rng, size, int(rng.choice(max_persons, p=chances / chances.sum())) + 1, variety)
    drawn = []
    for index, person in enumerate(persons):
        person.draw(canvas, index)
        drawn.append(silhouette(canvas, index))
    if rng.random() < 0.35 * variety:
        clutter(canvas, rng, int(rng.integers(1, 4)), _OBSTACLE)

    annotations = [
        _annotate(rng, person, canvas, index, body)
        for index, (person, body) in enumerate(zip(persons, drawn, strict=True))
        if body.sum() > 20
    ]
    return photograph(rng, canvas.image, variety), annotations


def _place_persons(rng: np.random.Generator, size: int, count: int, variety: float) -> list[Person]:
    """Persons from far (small) to near (large); joints may be outside the image."""
    heights = np.sort(size * rng.uniform(0.42, 1.05, count) ** (1 if count == 1 else 1.3))
    slots = rng.permutation(count)
    persons = []
    for height, slot in zip(heights, slots, strict=True):
        figure = build_figure(sample_body(rng), sample_pose(rng, variety), sample_view(rng, variety))
        outfit = sample_outfit(rng, height)
        corners = np.stack(list(figure.points.values()))[:, :2] * (1, -1) * height
        low, high = corners.min(0), corners.max(0)
        # the body's box is anywhere inside the image, or up to a fifth of its size beyond the border
        slack = size - (high - low)
        place = rng.uniform(0, 1, 2) * np.abs(slack) + np.minimum(slack, 0)
        if count > 1:
            # side by side, mostly with overlap
            place[0] = (slot + rng.uniform(0.1, 0.9)) / count * size - (high - low)[0] / 2
        beyond = rng.normal(0, 0.12, 2) if rng.random() < 0.3 * variety else np.zeros(2)
        persons.append(Person(figure, outfit, place - low + beyond * (high - low), float(height)))
    return persons


def _annotate(rng: np.random.Generator, person: Person, canvas: Canvas, index: int, body: np.ndarray) -> dict[str, Any]:
    size = canvas.labels.shape[0]
    shown = silhouette(canvas, index)
    inside = ((person.keypoints >= 0) & (person.keypoints <= size - 1)).all(1)
    flags = np.where(person.visible(canvas, index), 2, 1) * inside
    chance = np.full(len(flags), _UNLABELLED)
    chance[_FACE_JOINTS] = _UNLABELLED_FACE
    flags[(flags == 1) & (rng.random(len(flags)) < chance)] = 0
    if shown.sum() < _MIN_VISIBLE_SHARE * body.sum():
        flags[:] = 0
    keypoints = np.where(flags[:, None] > 0, person.keypoints.round(2), 0)

    # boxes drawn by hand are a little too large
    columns, rows = np.flatnonzero(body.any(0)), np.flatnonzero(body.any(1))
    box = np.array((columns[0], rows[0], columns[-1] + 1, rows[-1] + 1), float)
    span = np.tile(box[2:] - box[:2], 2)
    box = np.clip(box + rng.uniform(0, 0.03, 4) * span * (-1, -1, 1, 1), 0, size).round(2)
    contours, _ = cv2.findContours(shown.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_TC89_L1)
    return {
        "keypoints": np.column_stack((keypoints, flags)).ravel().tolist(),
        "num_keypoints": int((flags > 0).sum()),
        "bbox": [box[0], box[1], round(box[2] - box[0], 2), round(box[3] - box[1], 2)],
        "area": float(shown.sum()),
        "segmentation": [outline.ravel().tolist() for outline in contours if len(outline) > 2],
        "iscrowd": 0,
    }


def background(rng: np.random.Generator, size: int, variety: float) -> np.ndarray:
    """A gradient between two colours, sometimes a horizon, and coarse and fine noise."""
    angle = rng.uniform(0, 2 * np.pi)
    ramp = np.linspace(-0.7, 0.7, size, dtype=np.float32)
    share = np.clip(0.5 + ramp * np.float32(np.cos(angle)) + ramp[:, None] * np.float32(np.sin(angle)), 0, 1)
    first, second = _colours(rng, 2)
    image = first + share[..., None] * (second - first)
    if rng.random() < 0.5:
        below = image[int(size * rng.uniform(0.4, 0.85)) :]
        below += np.float32(rng.uniform(0.4, 0.9)) * (_colours(rng, 1)[0] - below)
    for cells in (int(rng.integers(3, 8)), int(rng.integers(12, 48))):
        # mostly luminance noise, a little colour noise
        coarse = rng.normal(0, rng.uniform(3, 24), (cells, cells, 1))
        coarse = coarse + rng.normal(0, rng.uniform(0, 9), (cells, cells, 3))
        image += np.float32(variety) * cv2.resize(
            coarse.astype(np.float32), (size, size), interpolation=cv2.INTER_LINEAR
        )
    return image


def _colours(rng: np.random.Generator, count: int) -> np.ndarray:
    """(count, 3) float32 RGB, more often muted than bright."""
    vivid = rng.beta(1.2, 2.5, (count, 1))
    grey, bright = rng.uniform(30, 225, (count, 1)), rng.uniform(15, 245, (count, 3))
    return (grey + vivid * (bright - grey)).astype(np.float32)


def clutter(canvas: Canvas, rng: np.random.Generator, count: int, label: int) -> None:
    """Polygons, discs, poles and jointed limb-like shapes, painted under `label`."""
    size = canvas.labels.shape[0]
    for _ in range(count):
        centre = rng.uniform(0, size, 2)
        extent = size * rng.uniform(0.05, 0.25)
        pattern = str(rng.choice(["plain", "rings", "stripes", "checks"], p=[0.6, 0.15, 0.15, 0.1]))
        colours = _colours(rng, 2)
        material = Material(colours[0], colours[1], pattern, size * rng.uniform(0.02, 0.1), rng.uniform(0, 0.5))
        kind = rng.integers(4)
        if kind == 0:
            corners = hull(centre + rng.uniform(-extent, extent, (int(rng.integers(3, 7)), 2)))
            canvas.paint(Shape(corners, centre, centre + rng.normal(0, extent, 2), extent, material), label)
        elif kind == 1:
            canvas.paint(capsule(centre, centre + 0.01, (extent * 0.6, extent * 0.6), material), label)
        elif kind == 2:
            reach = size * rng.uniform(0.3, 0.9)
            turn = rng.normal(np.pi / 2, 0.3) if rng.random() < 0.6 else rng.uniform(0, np.pi)
            tip = centre + reach * np.array((np.cos(turn), np.sin(turn)))
            canvas.paint(capsule(centre, tip, (size * rng.uniform(0.008, 0.03),) * 2, material), label)
        else:
            # two or three segments with the size, and often the colour, of an arm or a leg
            skin = Material(rng.uniform((90, 60, 40), (245, 205, 175)), outline=material.outline)
            radius = size * rng.uniform(0.012, 0.035)
            for _ in range(int(rng.integers(2, 4))):
                tip = centre + rng.normal(0, extent * 0.9, 2)
                canvas.paint(
                    capsule(centre, tip, (radius, radius * 0.75), skin if rng.random() < 0.6 else material), label
                )
                centre, radius = tip, radius * 0.75


def photograph(
    rng: np.random.Generator, image: np.ndarray, variety: float, noise: np.random.Generator | None = None
) -> np.ndarray:
    """Exposure, colour cast, blur and sensor noise. Frames of a video share a seed of `rng` and differ in `noise`."""
    image = (image - 128) * np.float32(rng.uniform(0.65, 1.15)) + 128 + np.float32(rng.normal(0, 14))
    image *= rng.normal(1, 0.05, 3).astype(np.float32)
    if rng.random() < 0.5 * variety:
        image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.4, 1.1))
    grain = (rng if noise is None else noise).standard_normal((*image.shape[:2], 1), dtype=np.float32)
    image += grain * np.float32(variety * rng.uniform(0, 10))
    return np.clip(image, 0, 255).astype(np.uint8)
