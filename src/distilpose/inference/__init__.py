"""Inference: poses of the persons on images and in videos, and drawings of them."""

from distilpose.inference.predictor import Predictor, VideoFrame
from distilpose.visualization.drawing import crop_image, draw_skeleton, heatmap_image

__all__ = ["Predictor", "VideoFrame", "crop_image", "draw_skeleton", "heatmap_image"]
