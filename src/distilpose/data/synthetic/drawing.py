"""Painting shaded, patterned, outlined shapes on a canvas that records the topmost part at every pixel."""

from __future__ import annotations

from dataclasses import dataclass, field

import cv2
import numpy as np

SUBPIXEL_BITS = 4
_CIRCLE = np.stack([np.cos(np.linspace(0, 2 * np.pi, 14, False)), np.sin(np.linspace(0, 2 * np.pi, 14, False))], 1)


@dataclass(frozen=True)
class Material:
    """How a surface looks.

    Attributes:
        colour: (3,) RGB in 0..255.
        second: (3,) colour of the pattern.
        pattern: plain, rings (across the limb), stripes (along it), checks or dots.
        period: period of the pattern in pixels.
        outline: how much darker the rim is, 0 to 1.
    """

    colour: np.ndarray
    second: np.ndarray = field(default_factory=lambda: np.zeros(3))
    pattern: str = "plain"
    period: float = 8.0
    outline: float = 0.0


@dataclass(frozen=True)
class Shape:
    """A convex polygon in pixels with the axis that its shading and pattern follow.

    Attributes:
        polygon: (M, 2) corners.
        start: (2,) start of the axis.
        end: (2,) end of the axis.
        half_width: distance from the axis to the edge of the surface.
        material: colours and pattern.
    """

    polygon: np.ndarray
    start: np.ndarray
    end: np.ndarray
    half_width: float
    material: Material


def capsule(
    start: np.ndarray, end: np.ndarray, radii: tuple[float, float], material: Material, bulge: float = 0.0
) -> Shape:
    """A limb: the hull of a disc at each end and, with `bulge`, of a disc in between that is wider by that share."""
    discs = [start + radii[0] * _CIRCLE, end + radii[1] * _CIRCLE]
    if bulge:
        discs.append(0.6 * start + 0.4 * end + (1 + bulge) * (0.6 * radii[0] + 0.4 * radii[1]) * _CIRCLE)
    return Shape(hull(np.concatenate(discs)), start, end, max(radii) * (1 + bulge), material)


def hull(points: np.ndarray) -> np.ndarray:
    """(M, 2) convex hull of (P, 2) points."""
    return cv2.convexHull(points.astype(np.float32))[:, 0]


class Canvas:
    """An image that is being drawn.

    Attributes:
        image: (H, W, 3) float32 RGB in 0..255.
        labels: (H, W) int32, the label of the topmost part at each pixel; 0 is background.
        light: (2,) direction of the light source in the image plane.
    """

    def __init__(self, image: np.ndarray, light: np.ndarray):
        self.image: np.ndarray = image
        self.labels: np.ndarray = np.zeros(image.shape[:2], np.int32)
        self.light = light

    def window(self, points: np.ndarray) -> tuple[slice, slice, np.ndarray, np.ndarray] | None:
        """Image region of the box around (P, 2) float32 points: rows, columns, their x (1, w) and y (h, 1)."""
        height, width = self.labels.shape
        left, top, across, down = cv2.boundingRect(points)
        right, bottom = min(width, left + across + 2), min(height, top + down + 2)
        left, top = max(0, left - 2), max(0, top - 2)
        if left >= right or top >= bottom:
            return None
        xs = np.arange(left, right, dtype=np.float32)[None]
        ys = np.arange(top, bottom, dtype=np.float32)[:, None]
        return slice(top, bottom), slice(left, right), xs, ys

    def paint(self, shape: Shape, label: int) -> None:
        """Draw a shape on top."""
        window = self.window(shape.polygon)
        if window is None:
            return
        rows, columns, xs, ys = window
        offset = (columns.start - 0.5 / (1 << SUBPIXEL_BITS), rows.start - 0.5 / (1 << SUBPIXEL_BITS))
        corners = ((shape.polygon - offset) * (1 << SUBPIXEL_BITS)).astype(np.int32)
        mask = np.zeros((ys.size, xs.size), np.uint8)
        cv2.fillConvexPoly(mask, corners, 255, cv2.LINE_AA, SUBPIXEL_BITS)

        # Python floats keep the arrays below in float32
        material, half_width = shape.material, max(float(shape.half_width), 0.5)
        (x, y), (dx, dy) = shape.start.tolist(), (shape.end - shape.start).tolist()
        length = (dx * dx + dy * dy) ** 0.5
        dx, dy = (dx / length, dy / length) if length > 1e-3 else (0.0, 1.0)
        along = xs * dx + (ys * dy - (x * dx + y * dy))
        across = xs * -dy + (ys * dx + (x * dy - y * dx))
        turn = across * (1 / half_width)
        np.maximum(np.minimum(turn, 1, out=turn), -1, out=turn)
        shade = turn * (0.24 * float(dx * self.light[1] - dy * self.light[0]) - 0.2 * turn)
        shade += 1.03
        if material.outline:
            rim = np.zeros(mask.shape, np.uint8)
            cv2.polylines(rim, [corners], True, 255, 1, cv2.LINE_AA, SUBPIXEL_BITS)
            # no outline at the start, so that a forearm joins its upper arm
            rim *= along > 0
            shade *= 1 - np.multiply(rim, material.outline / 255, dtype=np.float32)

        colour = material.colour.astype(np.float32)
        if material.pattern != "plain":
            share = pattern_share(material.pattern, along / material.period, across / material.period)[..., None]
            colour = colour + share * (material.second - material.colour).astype(np.float32)
        self.blend(rows, columns, mask, colour * shade[..., None], label)

    def blend(self, rows: slice, columns: slice, mask: np.ndarray, colour: np.ndarray, label: int) -> None:
        """Blend (h, w, 3) `colour` into the window by (h, w) uint8 `mask`, and set the label where the mask is above 127."""
        under = self.image[rows, columns]
        colour -= under
        colour *= np.multiply(mask, 1 / 255, dtype=np.float32)[..., None]
        under += colour
        np.copyto(self.labels[rows, columns], label, where=mask > 127)


def pattern_share(pattern: str, along: np.ndarray, across: np.ndarray) -> np.ndarray:
    """Share of the second colour, 0 to 1, at a position in periods."""
    if pattern == "rings":
        wave = np.sin(2 * np.pi * along)
    elif pattern == "stripes":
        wave = np.sin(2 * np.pi * across)
    elif pattern == "checks":
        wave = np.sin(2 * np.pi * along) * np.sin(2 * np.pi * across)
    else:
        wave = np.sin(2 * np.pi * along) + np.sin(2 * np.pi * across) - 0.8
    return np.clip(0.5 + 2 * wave, 0, 1)
