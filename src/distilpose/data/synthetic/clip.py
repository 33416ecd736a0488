"""A synthetic video of one person who moves smoothly from pose to pose, with the position of every joint."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from scipy.interpolate import CubicSpline

from distilpose.data.synthetic.drawing import Canvas
from distilpose.data.synthetic.figure import LIMITS, build_figure, rotation, sample_body, sample_pose
from distilpose.data.synthetic.outfit import sample_outfit
from distilpose.data.synthetic.person import Person, silhouette
from distilpose.data.synthetic.scene import background, clutter, photograph
from distilpose.skeleton import COCO


def draw_clip(
    rng: np.random.Generator, frames: int, fps: float = 25.0, size: int = 128, variety: float = 0.6, pace: float = 1.0
) -> tuple[Iterator[np.ndarray], dict[str, Any]]:
    """One person in front of one background: a new pose every `pace` seconds, splines in between, new noise each frame.

    Args:
        rng: random generator that decides everything.
        frames: number of frames.
        fps: frames per second.
        size: width and height in pixels.
        variety: variety of poses and clutter, 0 to 1.
        pace: seconds from one pose to the next.

    Returns:
        The frames (size, size, 3) uint8 RGB, drawn lazily, and the content of a COCO annotation file: image ids from 0,
        all 17 joints labelled, boxes around all drawn parts of the person.
    """
    seconds = np.arange(frames) / fps
    persons = _movement(rng, seconds, size, variety, pace)
    angle = rng.uniform(0, 2 * np.pi)
    light = np.array((np.cos(angle), np.sin(angle)))
    empty = Canvas(background(rng, size, variety), light)
    clutter(empty, rng, round(variety * rng.integers(3, 9)), 0)
    seed = int(rng.integers(1 << 32))
    bodies = []
    for person in persons:
        canvas = Canvas(empty.image.copy(), light)
        person.draw(canvas, 0)
        bodies.append(silhouette(canvas, 0))

    def pictures() -> Iterator[np.ndarray]:
        for number, person in enumerate(persons):
            canvas = Canvas(empty.image.copy(), light)
            person.draw(canvas, 0)
            # the same exposure and blur in all frames, but other noise
            noise = np.random.default_rng((seed, number))
            yield photograph(np.random.default_rng(seed), canvas.image, variety, noise)

    annotations = [_annotation(n, person, body) for n, (person, body) in enumerate(zip(persons, bodies, strict=True))]
    images = [{"id": n, "file_name": f"{n:06d}.jpg", "width": size, "height": size} for n in range(frames)]
    limbs = [[a + 1, b + 1] for a, b in COCO.limbs]
    category = {"id": 1, "name": "person", "keypoints": list(COCO.names), "skeleton": limbs}
    return pictures(), {"images": images, "annotations": annotations, "categories": [category]}


def _movement(rng: np.random.Generator, seconds: np.ndarray, size: int, variety: float, pace: float) -> list[Person]:
    """The person in each frame. Angles, heading and position follow splines through random poses."""
    body, height = sample_body(rng), size * rng.uniform(0.6, 0.75)
    outfit = sample_outfit(rng, height)
    count = int(seconds[-1] / pace) + 2 if len(seconds) else 2
    times = pace * np.arange(count)
    poses = np.array([list(sample_pose(rng, variety).values()) for _ in times])
    headings = rng.normal(0, 25, count)
    places = size * (0.5 + rng.uniform(-0.08, 0.08, (count, 2)))
    angles, heading, place = (CubicSpline(times, values)(seconds) for values in (poses, headings, places))
    low, high = np.array(list(LIMITS.values())).T
    figures = [
        build_figure(body, dict(zip(LIMITS, np.clip(row, low, high).tolist(), strict=True)), rotation("y", float(turn)))
        for row, turn in zip(angles, heading, strict=True)
    ]
    return [Person(figure, outfit, centre, height) for figure, centre in zip(figures, place, strict=True)]


def _annotation(number: int, person: Person, body: np.ndarray) -> dict[str, Any]:
    columns, rows = np.flatnonzero(body.any(0)), np.flatnonzero(body.any(1))
    box = [int(columns[0]), int(rows[0]), int(columns[-1] - columns[0] + 1), int(rows[-1] - rows[0] + 1)]
    flags = np.full((len(person.keypoints), 1), 2.0)
    return {
        "id": number + 1,
        "image_id": number,
        "category_id": 1,
        "keypoints": np.hstack((person.keypoints.round(3), flags)).ravel().tolist(),
        "num_keypoints": len(person.keypoints),
        "bbox": box,
        "area": float(body.sum()),
        "iscrowd": 0,
    }
