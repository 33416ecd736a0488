"""Inference: poses of the persons on photographs and in videos, and pictures of them."""

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
