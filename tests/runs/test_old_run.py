"""A run that an older version started and stopped within an epoch: the current version resumes it to the same end."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from hydra.utils import get_object
from omegaconf import OmegaConf
from safetensors.torch import load_file

from distilpose import load_model
from distilpose.callbacks.metrics_table import read_table
from distilpose.cli.validate_settings import validate
from distilpose.runs.config import flatten
from distilpose.runs.train_settings import TrainSettings

OLD = Path(__file__).parents[1] / "fixtures" / "run_before_rooms"


def test_its_settings_are_valid_and_its_targets_exist():
    cfg = OmegaConf.load(OLD / "config.yaml")
    validate(cfg, TrainSettings)
    targets = [value for key, value in flatten(OmegaConf.to_container(cfg)).items() if key.endswith("_target_")]
    assert len(targets) > 10
    assert all(callable(get_object(target)) for target in targets)


def test_its_checkpoints_load():
    for name in ("last", "recent"):
        assert load_model(OLD / "checkpoints" / f"{name}.ckpt").name == "student_xs"


def test_it_ends_as_with_the_old_version(run_train, tmp_path):
    """The expected files were computed by the old version on another processor: sums may differ in their last bits."""
    run = Path(shutil.copytree(OLD, tmp_path / "run"))
    assert torch.load(run / "checkpoints" / "recent.ckpt", weights_only=True)["global_step"] == 7
    status, printed = run_train("resume=run")
    assert status == 0, printed
    rows, expected = read_table(run / "metrics.csv"), read_table(OLD / "expected" / "metrics.csv")
    for row, wanted in zip(rows, expected, strict=True):
        row.pop("val/PCK_box", None)  # later versions log it too
        assert row.keys() == wanted.keys()
        assert [row[name] for name in row.keys() - {"seconds"}] == pytest.approx(
            [wanted[name] for name in row.keys() - {"seconds"}], rel=1e-4, abs=1e-6
        )
    weights = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    wanted = load_file(OLD / "expected" / "last.safetensors")
    assert weights.keys() == wanted.keys()
    for name, value in weights.items():
        torch.testing.assert_close(value, wanted[name], rtol=1e-4, atol=1e-5)
