"""Mistakes in the settings of callbacks, found in the composed configuration."""

from __future__ import annotations

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from distilpose.cli.paths import CONFIG_DIR
from distilpose.cli.validate_settings import validate
from distilpose.errors import DistilPoseError


def callbacks(*overrides):
    with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        cfg = compose("train", ["folder=run", *overrides])
    return OmegaConf.create({"callbacks": OmegaConf.to_container(cfg.callbacks, resolve=True)})


@pytest.mark.parametrize("group", ["default", "diagnosis", "ema", "early_stopping", "[ema,diagnosis]"])
def test_the_shipped_settings_are_valid(group):
    validate(callbacks(f"callbacks={group}"), object)


@pytest.mark.parametrize(
    ("group", "setting", "expected"),
    [
        ("default", "callbacks.interruption.minutes=0", "above 0"),
        ("default", "callbacks.interruption.minutes=often", "minutes"),
        ("default", "callbacks.pictures.persons=0", "at least 1"),
        ("default", "callbacks.health.persons=1.5", "whole number"),
        ("default", "callbacks.details.persons=-1", "at least 1"),
        ("diagnosis", "callbacks.gradient_share.every=0", "at least 1"),
        ("ema", "callbacks.ema.decay=1", "below 1"),
        ("default", "+callbacks.pictures.people=3", "callbacks.pictures.people"),
    ],
)
def test_mistakes(group, setting, expected):
    with pytest.raises(DistilPoseError) as error:
        validate(callbacks(f"callbacks={group}", setting), object)
    assert setting.lstrip("+").split("=")[0] in str(error.value)
    assert expected in str(error.value)
