"""Inference: poses of the persons on images and in videos, and drawings of them."""

from distilpose.inference.predictor import Predictor, VideoFrame
from distilpose.visualization.drawing import (
    contact_sheet,
    crop_image,
    difference_image,
    draw_numbers,
    draw_skeleton,
    heatmap_image,
    overlay_heatmap,
)

__all__ = [
    "Predictor",
    "VideoFrame",
    "contact_sheet",
    "crop_image",
    "difference_image",
    "draw_numbers",
    "draw_skeleton",
    "heatmap_image",
    "overlay_heatmap",
]
