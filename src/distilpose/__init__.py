"""DistilPose: small regression pose models that learn from heat-map models.

The public names are loaded on first use, so that importing the package is fast.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from distilpose.inference import Predictor
    from distilpose.models import create_model, list_models, load_model

    __version__: str

__all__ = ["Predictor", "__version__", "create_model", "list_models", "load_model"]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("distilpose")
    if name == "Predictor":
        from distilpose.inference import Predictor

        return Predictor
    if name in __all__:
        from distilpose import models

        return getattr(models, name)
    raise AttributeError(f"module 'distilpose' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
