"""Networks, their registry, and their files."""

from distilpose.models.checkpoint import fit_weights, load_model, save_model
from distilpose.models.complexity import count_gmacs, count_parameters
from distilpose.models.factory import create_model
from distilpose.models.model import PoseModel
from distilpose.models.registry import ModelSpec, list_models, model_spec
from distilpose.models.start import copy_backbone, start_from, use_normalisation

__all__ = [
    "ModelSpec",
    "PoseModel",
    "copy_backbone",
    "count_gmacs",
    "count_parameters",
    "create_model",
    "fit_weights",
    "list_models",
    "load_model",
    "model_spec",
    "save_model",
    "start_from",
    "use_normalisation",
]
