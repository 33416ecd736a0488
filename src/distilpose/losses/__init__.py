"""Losses: plain modules, tensors in and scalars out."""

from distilpose.losses.distillation import DistillationLoss
from distilpose.losses.distributions import divergence_loss, marginal_loss, moment_loss
from distilpose.losses.heatmaps import HeatmapCrossEntropy, HeatmapMSE, simulated_heatmaps
from distilpose.losses.likelihood import ResidualLogLikelihood
from distilpose.losses.terms import (
    confidence_loss,
    regression_loss,
    simulated_heatmap_loss,
    teacher_confidence,
    token_loss,
)
from distilpose.losses.tokens import TokenProjection, TokenShape

__all__ = [
    "DistillationLoss",
    "HeatmapCrossEntropy",
    "HeatmapMSE",
    "ResidualLogLikelihood",
    "TokenProjection",
    "TokenShape",
    "confidence_loss",
    "divergence_loss",
    "marginal_loss",
    "moment_loss",
    "regression_loss",
    "simulated_heatmap_loss",
    "simulated_heatmaps",
    "teacher_confidence",
    "token_loss",
]
