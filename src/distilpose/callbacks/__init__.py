"""Callbacks of a training run: metrics, pictures, checkpoints, interruption, pruning and provenance."""

from distilpose.callbacks.averaged_weights import AveragedWeights
from distilpose.callbacks.best_checkpoint import BestCheckpoint
from distilpose.callbacks.gradient_share import GradientShare
from distilpose.callbacks.health import DistillationHealth
from distilpose.callbacks.interruption import Interruption
from distilpose.callbacks.metrics_table import MetricsTable
from distilpose.callbacks.pictures import Pictures
from distilpose.callbacks.provenance import Provenance
from distilpose.callbacks.pruning import Pruning
from distilpose.callbacks.speed import Speed
from distilpose.callbacks.validation_details import ValidationDetails
from distilpose.loggers.mlflow_logger import make_mlflow_logger
from distilpose.loggers.wandb_logger import finish_wandb, make_wandb_logger

__all__ = [
    "AveragedWeights",
    "BestCheckpoint",
    "DistillationHealth",
    "GradientShare",
    "Interruption",
    "MetricsTable",
    "Pictures",
    "Provenance",
    "Pruning",
    "Speed",
    "ValidationDetails",
    "finish_wandb",
    "make_mlflow_logger",
    "make_wandb_logger",
]
