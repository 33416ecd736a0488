"""Fixtures of the callbacks that draw."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from distilpose.data import CocoDataModule


@pytest.fixture
def folder(tmp_path):
    """The folder of pictures, which does not exist until one is drawn."""
    return tmp_path / "pictures"


@pytest.fixture
def trainer(tiny_coco):
    """A stub trainer with the attributes that callbacks read, and the data of a tiny set."""
    files = "annotations/train.json", "train", "annotations/val.json", "val"
    datamodule = CocoDataModule(tiny_coco(val=6), *files, input_size=(64, 48), num_workers=0)
    return SimpleNamespace(
        datamodule=datamodule, sanity_checking=False, is_global_zero=True, current_epoch=3, global_step=7, loggers=[],
        callback_metrics={"train/regression_epoch": torch.tensor(0.5), "train/confidence_epoch": torch.tensor(0.0)},
    )  # fmt: skip
