"""Losses: plain modules, tensors in and scalars out."""

from distilpose.losses.distillation import (
    DistillationLoss,
    confidence_loss,
    regression_loss,
    simulated_heatmap_loss,
    teacher_confidence,
    token_loss,
)
from distilpose.losses.heatmaps import HeatmapCrossEntropy, HeatmapMSE, simulated_heatmaps

__all__ = [
    "DistillationLoss",
    "HeatmapCrossEntropy",
    "HeatmapMSE",
    "confidence_loss",
    "regression_loss",
    "simulated_heatmap_loss",
    "simulated_heatmaps",
    "teacher_confidence",
    "token_loss",
]
