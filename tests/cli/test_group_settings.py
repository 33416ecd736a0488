"""Settings of the groups model, loss, teacher, method and scheduler: each is declared, and an error names it.

No model is built: a composed configuration is checked against the declarations.
"""

from __future__ import annotations

import functools

import pytest
import yaml
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

from distilpose.cli.paths import CONFIG_DIR
from distilpose.cli.validate_settings import describe, settings_of, validate
from distilpose.convert import ConvertSettings
from distilpose.errors import DistilPoseError
from distilpose.record import RecordSettings

GROUPS = ["model", "loss", "teacher", "method", "scheduler"]


class NoSettings:
    """No settings of a command: only the groups are checked."""


@functools.cache
def composed(name: str, *overrides: str):
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        return compose(name, list(overrides))


def groups(*overrides: str):
    """The composed groups. Each choice of groups is composed once; values are set on a copy."""
    choices = [override for override in overrides if "." not in override.partition("=")[0]]
    values = [override.lstrip("+") for override in overrides if override not in choices]
    chosen = OmegaConf.masked_copy(composed("train", *choices), GROUPS)
    OmegaConf.set_struct(chosen, False)
    for name, _, value in (value.partition("=") for value in values):
        OmegaConf.update(chosen, name, yaml.safe_load(value), merge=False)
    return chosen


@pytest.mark.parametrize(
    "setting",
    [
        "model.width",
        "model.depth",
        "teacher.precision",
        "teacher.check_persons",
        "loss.agreement",
        "method.layer_decay",
    ],
)
def test_help_describes_settings(setting):
    (declared,) = [one for one in settings_of(groups(), NoSettings) if one.name == setting]
    assert declared.description
    assert describe(declared.annotation)


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("model.width=18", "divides"),
        ("model.depth=0", "at least 1"),
        ("model.input_size=256", "a list of 2"),
        ("model.input_size=[256]", "a list of 2"),
        ("model.input_size=[256,-12]", "at least 1"),
        ("model.input_size=[256,192.5]", "whole number"),
        ("model.pretrained=3", "true, false or a path"),
        ("model=student_lite model.strides=16", "a list of at least 1"),
        ("model=student_lite model.strides=[]", "a list of at least 1"),
        ("model=student_lite model.strides=[0]", "at least 1"),
        ("model.patch_size=4", "a list of 2"),
        ("model=student_xs model.widths=[1,1,1]", "a list of 4"),
        ("+model.widht=3", "model.width"),
        ("loss.confidence=-1", "at least 0"),
        ("loss.confidence=.inf", "a number"),
        ("loss.beta=abc", "a number"),
        ("loss.label_sigma=-1", "at least 0"),
        ("loss.agreement=1.5", "from 0 to 1"),
        ("loss.divergence_shape=cauchy", "laplace"),
        ("loss.project_tokens=sure", "true or false"),
        ("loss.ramps=5", "settings by name"),
        ("loss.ramps={confidence: 0.5}", "settings by name"),
        ("loss.ramps={heat: [0, 1]}", "settings by name"),
        ("teacher.precision=fp8", "bf16"),
        ("teacher.check_persons=0", "at least 1"),
        ("teacher.check=sometimes", "true or false"),
        ("teacher=labels teacher.sigma=0", "above 0"),
        ("teacher=recorded teacher.file=null", "a path"),
        ("teacher=blazepose teacher.file=null", "a path"),
        ("teacher=recorded teacher.file=x teacher.sigma=-1", "at least 0"),
        ("teacher=recorded teacher.file=x teacher.least_trust=2", "from 0 to 1"),
        ("teacher=blazepose teacher.file=x teacher.turns=0", "at least 1"),
        ("teacher=blazepose teacher.file=x teacher.passes=-1", "at least 0"),
        ("teacher=blazepose teacher.file=x teacher.threads=0", "at least 1"),
        ("method.layer_decay=0", "above 0"),
        ("method.layer_decay=1.5", "at most 1"),
        ("method.gradient_checkpointing=sure", "true or false"),
        ("method.frozen=head", "a list"),
        ("method.frozen=null", "a list"),
        ("method.flip_test=sometimes", "released"),
        ("method=heatmap method.sigma=0", "above 0"),
        ("scheduler.warmup_steps=-1", "at least 0"),
    ],
)
def test_mistakes_are_named(override, expected):
    overrides = override.split(" ") if "{" not in override else [override]
    with pytest.raises(DistilPoseError) as error:
        validate(groups(*overrides), NoSettings)
    assert overrides[-1].lstrip("+").partition("=")[0] in str(error.value)
    assert expected in str(error.value)


@pytest.mark.parametrize(
    ("command", "declared", "overrides", "expected"),
    [
        ("record", RecordSettings, ["split=test"], "train or val"),
        ("record", RecordSettings, ["batch_size=0"], "at least 1"),
        ("convert", ConvertSettings, ["reverse=sure"], "true or false"),
        ("convert", ConvertSettings, ["weights_kind=best"], "averaged or raw"),
    ],
)
def test_mistakes_of_commands_are_named(command, declared, overrides, expected):
    with pytest.raises(DistilPoseError) as error:
        validate(composed(command, *overrides), declared)
    name, _, value = overrides[-1].partition("=")
    assert name in str(error.value)
    assert value in str(error.value)
    assert expected in str(error.value)


@pytest.mark.parametrize("model", ["student_s", "teacher_hrnet_w48"])
def test_commands_are_valid(model):
    validate(composed("convert", f"model={model}", "source=a.pth", "output=b.safetensors"), ConvertSettings)
    validate(composed("record"), RecordSettings)
