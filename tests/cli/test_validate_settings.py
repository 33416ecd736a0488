"""Settings are checked against their declarations in groups and commands."""

from __future__ import annotations

import importlib
import math
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import pytest
from annotated_types import Ge, Gt, Le, Len, Lt, MultipleOf, Unit
from hydra import initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

from distilpose.cli.help import compose_outside_job
from distilpose.cli.paths import CONFIG_DIR
from distilpose.cli.resolvers import register_resolvers
from distilpose.cli.setting_descriptions import describe
from distilpose.cli.validate_settings import check, settings_of, validate, validate_command
from distilpose.errors import DistilPoseError

Size = tuple[Annotated[int, Gt(0)], Annotated[int, Gt(0)]]


class Base:
    """Base class of what a group builds.

    Args:
        rate: rate of something. Not shown.
    """

    def __init__(self, rate: Annotated[float, Gt(0)] = 1.0):
        self.rate = rate


class Thing(Base):
    """What a group builds.

    Args:
        turns: how many.
        size: (H, W) in pixels.
        mode: what it does, in words that
            take two lines.
    """

    def __init__(
        self, turns: Annotated[int, Ge(1)] = 8, size: Size = (4, 3), mode: bool | Literal["auto"] = True, **options: Any
    ):
        super().__init__(**options)


class Settings:
    """A command's settings.

    Attributes:
        seed: of all.
        thing: built.
        other: free.
    """

    seed: Annotated[int, Ge(0), Le(9)]
    output: Path | None


def configured(**thing):
    content = {
        "seed": 0,
        "output": None,
        "thing": {"_target_": f"{__name__}.Thing", "turns": 8, **thing},
        "free": "any",
    }
    return OmegaConf.create(content)


def test_settings_come_with_their_declarations():
    by_name = {setting.name: setting for setting in settings_of(configured(rate=2, mode="auto"), Settings)}
    assert list(by_name) == ["seed", "output", "thing.turns", "thing.rate", "thing.mode", "free"]
    assert by_name["thing.rate"][1:] == (2, Annotated[float, Gt(0)], "rate of something")
    assert by_name["thing.mode"].description == "what it does, in words that take two lines"
    assert by_name["free"].annotation is None


@pytest.mark.parametrize(
    ("changed", "facts"),
    [
        ({"turns": 0}, ["thing.turns=0", "a whole number of at least 1"]),
        ({"turns": 2.5}, ["thing.turns=2.5", "whole"]),
        ({"turns": True}, ["thing.turns=true", "whole"]),
        ({"turns": None}, ["thing.turns=null", "whole"]),
        ({"rate": "fast"}, ["thing.rate=fast", "a number above 0"]),
        ({"rate": math.nan}, ["thing.rate=nan", "a number above 0"]),
        ({"rate": 0}, ["thing.rate=0", "a number above 0"]),
        ({"size": 256}, ["thing.size=256", "a list of 2, each a whole number above 0"]),
        ({"size": [4]}, ["thing.size=[4]", "a list of 2"]),
        ({"size": [4, 0]}, ["thing.size=[4, 0]", "above 0"]),
        ({"mode": "yes"}, ["thing.mode=yes", "true, false or auto"]),
        ({"turn": 1}, ["thing.turn ", "Thing", "thing.turns?"]),
        ({"colour": 1}, ["thing.colour ", "Thing", "~thing.colour"]),
        ({"_target_": f"{__name__}.Nothing"}, ["thing._target_=", "Nothing"]),
    ],
    ids=str,
)
def test_a_violation_is_one_sentence_with_name_value_and_expectation(changed, facts):
    validate(configured(rate=1, size=[4, 3], mode=False), Settings)
    with pytest.raises(DistilPoseError) as error:
        validate(configured(**changed), Settings)
    assert all(fact in str(error.value) for fact in facts), str(error.value)


@pytest.mark.parametrize(
    ("annotation", "text"),
    [
        (int, "a whole number"),
        (bool | None, "null, true or false"),
        (Annotated[float, Ge(0), Le(1)], "a number from 0 to 1"),
        (Annotated[float, Gt(0), Le(1)], "a number above 0 and at most 1"),
        (Annotated[float, Gt(0), Lt(1), Unit("cells")], "a number above 0 and below 1 cells"),
        (Annotated[int, Le(5)], "a whole number of at most 5"),
        (Annotated[float, Unit("seconds")], "a number of seconds"),
        (Annotated[int, Ge(4), MultipleOf(4)], "a whole number of at least 4 that 4 divides"),
        (Annotated[list[int], Len(2, 2)], "a list of 2, each a whole number"),
        (Literal[1, "1", "one"], "1 or one"),
        (str | Path | None, "null or a path"),
        (list[str] | str, "text or a list, each text"),
        (int | float | dict[str, int], "a number or settings by name"),
        (dict[Literal["a", "b"], int], "settings by name (a, b), each a whole number"),
        (float | OmegaConf, "a number"),
    ],
    ids=str,
)
def test_an_annotation_in_words(annotation, text):
    assert describe(annotation) == text


# ---- every setting of every command


def declared_by(name: str) -> type | None:
    """The class that declares a command's settings; None if it has none."""
    module = importlib.import_module(f"distilpose.{name}")
    matches = [
        value
        for key, value in vars(module).items()
        if key.endswith("Settings") and isinstance(value, type) and key.lower() == f"{name}settings"
    ]
    return matches[0] if matches else None


COMMANDS = sorted(path.stem for path in CONFIG_DIR.glob("*.yaml"))
GROUPS = sorted(
    (group.name, choice.stem) for group in CONFIG_DIR.iterdir() if group.is_dir() for choice in group.glob("*.yaml")
)


@lru_cache
def composed(name: str, *overrides: str):
    """A resolved configuration."""
    register_resolvers()
    with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        return OmegaConf.create(OmegaConf.to_container(compose_outside_job(name, overrides), resolve=True))


@pytest.fixture(scope="module", autouse=True)
def no_job_afterwards():
    """Reset HydraConfig, which compose_outside_job sets for ${hydra:…}."""
    yield
    HydraConfig.instance().cfg = None


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_is_valid_as_composed(name):
    validate_command(composed(name), declared_by(name) or Settings)


@pytest.mark.parametrize(("group", "choice"), GROUPS)
def test_each_choice_of_a_group_is_valid_in_a_training(group, choice):
    if group == "detector":
        validate(composed("predict", f"detector={choice}"), declared_by("predict") or Settings)
        return
    validate(composed("train", f"{'+' if group == 'photometric' else ''}{group}={choice}"), declared_by("train"))


def bounds_of(annotation) -> list[tuple[float, bool, bool]]:
    """Each bound of a number in an annotation: its value, whether it is allowed, whether it is the lowest."""
    if get_origin(annotation) is not Annotated:
        return []
    kind, *marks = get_args(annotation)
    if kind not in (int, float):
        return []
    bounds = []
    for mark in marks:
        if isinstance(mark, (Ge, Gt)):
            bounds.append((mark.ge if isinstance(mark, Ge) else mark.gt, isinstance(mark, Ge), True))
        if isinstance(mark, (Le, Lt)):
            bounds.append((mark.le if isinstance(mark, Le) else mark.lt, isinstance(mark, Le), False))
    return bounds


def test_each_declared_bound_is_enforced():
    """A value just outside of each bound is an error that names the setting, one just inside is not."""
    seen = {}
    for command_name in COMMANDS:
        seen |= {s.name: s for s in settings_of(composed(command_name), declared_by(command_name) or Settings)}
    for group, choice in GROUPS:
        if group not in ("detector", "photometric"):
            seen |= {s.name: s for s in settings_of(composed("train", f"{group}={choice}"), declared_by("train"))}
    checked = 0
    for setting in seen.values():
        parts = get_args(setting.annotation) if get_origin(setting.annotation) is not Annotated else ()
        for annotation in (setting.annotation, *parts):
            for bound, allowed, lowest in bounds_of(annotation):
                step = 1 if get_args(annotation)[0] is int else 1e-6
                inside, outside = (bound + step, bound - step) if lowest else (bound - step, bound + step)
                inside, outside = (bound, outside) if allowed else (inside, bound)
                check(setting.name, inside, annotation)
                with pytest.raises(DistilPoseError, match=setting.name):
                    check(setting.name, outside, annotation)
                checked += 1
    assert checked > 10


@pytest.mark.parametrize(
    ("override", "facts"),
    [
        ("+foo=5", ["foo", "~foo"]),
        ("+callbacks.x=3", ["callbacks.x", "~callbacks.x"]),
        ("callbacks.checkpoint=3", ["callbacks.checkpoint"]),
        ("data.augmentation=5", ["data.augmentation=5"]),
        ("~seed", ["seed", "missing"]),
        ("~method", ["method", "missing"]),
        ("~model._target_", ["model has no _target_"]),
        ("+trainer.logger=true", ["trainer.logger=true", "null"]),
        ("+foo.bar=5", ["foo is not a setting"]),
        ("+callbacks.pictures.foo=1", ["callbacks.pictures.foo", "Pictures"]),
    ],
)
def test_a_setting_that_nothing_declares_is_an_error(override, facts):
    with pytest.raises(DistilPoseError) as error:
        validate_command(composed("train", override), declared_by("train"))
    assert all(fact in str(error.value) for fact in facts)


@pytest.mark.parametrize(
    "override",
    [
        "~scheduler",
        "~callbacks",
        "~logger",
        "callbacks.pictures=null",
        "callbacks.checkpoint=null",
        "data.augmentation=null",
        "trainer.devices=[0]",
    ],
)
def test_groups_may_be_removed(override):
    validate_command(composed("train", override), declared_by("train"))
