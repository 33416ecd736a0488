"""Pictures as files hold them."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image


def encoded(kind: str = "JPEG", size: tuple[int, int] = (90, 120), seed: int = 0, **options) -> bytes:
    """A picture of that (height, width) as a file's content."""
    noise = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    content = io.BytesIO()
    Image.fromarray(noise).save(content, kind, **options)
    return content.getvalue()
