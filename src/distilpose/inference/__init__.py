"""Inference: poses of the persons on photographs, and pictures of them."""

from distilpose.inference.drawing import (
    contact_sheet,
    crop_image,
    difference_image,
    draw_skeleton,
    heatmap_image,
    overlay_heatmap,
)
from distilpose.inference.predictor import Predictor

__all__ = [
    "Predictor",
    "contact_sheet",
    "crop_image",
    "difference_image",
    "draw_skeleton",
    "heatmap_image",
    "overlay_heatmap",
]
