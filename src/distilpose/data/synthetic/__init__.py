"""Synthetic people: images drawn by rule, written as a folder in COCO keypoint format."""

from distilpose.data.synthetic.datamodule import SyntheticDataModule
from distilpose.data.synthetic.dataset import SyntheticSpec, write_synthetic

__all__ = ["SyntheticDataModule", "SyntheticSpec", "write_synthetic"]
