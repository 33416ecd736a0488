"""Appearance of a synthetic person: clothes, skin and hair."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from distilpose.data.synthetic.drawing import Material


@dataclass(frozen=True)
class Outfit:
    """Colours and clothes of one person; sleeve and leg lengths run from 0 (none) to 2 (to the wrist or ankle)."""

    skin: np.ndarray
    hair: np.ndarray
    hair_length: float
    fringe: float
    shirt: Material
    bottoms: Material
    shoes: np.ndarray
    sleeve: float
    leg: float
    skirt: float
    looseness: float
    outline: float


def sample_outfit(rng: np.random.Generator, height: float) -> Outfit:
    """Random clothes, skin and hair for a person `height` pixels tall."""
    outline = rng.uniform(0.0, 0.45)
    light, dark = np.array((246, 208, 178)), np.array((84, 54, 38))
    skin = light + rng.random() * (dark - light) + rng.normal(0, 6, 3)
    hairs = np.array(((28, 22, 20), (74, 46, 28), (128, 84, 46), (206, 170, 104), (150, 150, 150), (150, 62, 30)))

    def cloth() -> Material:
        hue = np.array([[[rng.uniform(0, 180), rng.uniform(10, 220), rng.uniform(45, 245)]]])
        colour = cv2.cvtColor(hue.astype(np.uint8), cv2.COLOR_HSV2RGB)[0, 0].astype(float)
        second = rng.uniform(10, 250, 3)
        pattern = str(rng.choice(["plain", "rings", "stripes", "checks", "dots"], p=[0.5, 0.16, 0.12, 0.12, 0.1]))
        return Material(colour, second, pattern, max(2.5, height * rng.uniform(0.03, 0.07)), outline)

    shirt, bottoms = cloth(), cloth()
    skirt = rng.uniform(0.5, 1.5) if rng.random() < 0.2 else 0.0
    if skirt and rng.random() < 0.5:
        bottoms = shirt
    return Outfit(
        skin=np.clip(skin, 20, 255),
        hair=np.clip(hairs[rng.integers(len(hairs))] + rng.normal(0, 10, 3), 5, 250),
        hair_length=rng.uniform(0.5, 1.6) if rng.random() < 0.4 else 0.0,
        fringe=rng.uniform(-0.15, 0.25),
        shirt=shirt,
        bottoms=bottoms,
        shoes=rng.uniform(15, 240, 3),
        sleeve=float(rng.choice([0.0, 0.55, 1.0, 1.5, 2.0], p=[0.15, 0.35, 0.1, 0.1, 0.3])),
        leg=0.0 if skirt else float(rng.choice([0.4, 0.75, 1.5, 2.0], p=[0.12, 0.25, 0.08, 0.55])),
        skirt=skirt,
        looseness=rng.uniform(1.02, 1.35),
        outline=outline,
    )
