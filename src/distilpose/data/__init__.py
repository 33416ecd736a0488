"""From annotation files to batches: instances, crops, augmentation, targets and their decoding.

The public names are imported on first use, because code that only needs the codec should not wait for Lightning.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from distilpose.data.augmentation import PoseAugmentation
    from distilpose.data.coco import CocoKeypoints
    from distilpose.data.datamodule import CocoDataModule
    from distilpose.data.mixed import MixedDataModule, MixedPersons
    from distilpose.data.synthetic import SyntheticDataModule

_MODULES = {
    "CocoDataModule": "datamodule",
    "CocoKeypoints": "coco",
    "MixedDataModule": "mixed",
    "MixedPersons": "mixed",
    "PoseAugmentation": "augmentation",
    "SyntheticDataModule": "synthetic",
}

__all__ = [
    "CocoDataModule",
    "CocoKeypoints",
    "MixedDataModule",
    "MixedPersons",
    "PoseAugmentation",
    "SyntheticDataModule",
]


def __getattr__(name: str) -> Any:
    """Import a public name from its module."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
