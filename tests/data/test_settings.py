"""Settings of the groups data and augmentation, checked in a composed configuration before anything is built."""

from __future__ import annotations

import pytest
from hydra import compose, initialize_config_dir

from distilpose.cli.paths import CONFIG_DIR
from distilpose.cli.validate_settings import settings_of, validate
from distilpose.errors import DistilPoseError

DATA = ("coco", "coco_lspet", "custom", "lspet", "synthetic")
AUGMENTATION = ("flip", "moderate", "none", "photometric", "released", "teacher_hrnet")


class RootSettings:
    """A command without settings of its own."""


def composed(*overrides: str):
    with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        return compose(overrides=list(overrides))


@pytest.mark.parametrize("data", DATA)
@pytest.mark.parametrize("augmentation", AUGMENTATION)
def test_shipped_files_are_valid_and_every_setting_is_declared(data, augmentation):
    cfg = composed(f"+data={data}", f"+augmentation={augmentation}", "+seed=3")
    validate(cfg, RootSettings)
    undeclared = {s.name for s in settings_of(cfg, RootSettings) if s.annotation is None and s.name != "seed"}
    assert undeclared <= {"data.skeleton", "data.others.lspet.skeleton"} | {
        name for name in undeclared if name.startswith("data.augmentation.photometric")
    }


@pytest.mark.parametrize(
    "wrong",
    [
        "data.batch_size=0", "data.batch_size=1.5", "data.val_batch_size=0", "data.num_workers=-1", "data.padding=0",
        "data.label_share=1.5", "data.limit_train=0", "data.limit_val=few", "data.unlabelled=maybe", "data.seed=-1",
        "data.score_threshold=high", "data.input_size=[256]", "data.input_size=[256,0]", "data.input_size=256",
        "data.num_train=0", "data.image_size=8", "data.max_persons=1.5", "data.variety=2", "data.drawing_seed=-1",
        "augmentation.flip_prob=1.5", "augmentation.scale=1", "augmentation.rotation=-3", "augmentation.half_body_padding=0",
        "augmentation.half_body_min_joints=2.5", "augmentation.shift_prob=true",
    ],
)  # fmt: skip
def test_wrong_values_are_named(wrong):
    with pytest.raises(DistilPoseError) as error:
        validate(composed("+data=synthetic", "+augmentation=released", f"++{wrong}"), RootSettings)
    name, _, value = wrong.partition("=")
    message = str(error.value).replace(", ", ",")
    assert f"{name}={value}" in message
    assert "must be" in message


def test_settings_of_each_set_of_a_mixture():
    for wrong in ("data.repeats.lspet=0.5", "data.others.lspet.padding=-1"):
        with pytest.raises(DistilPoseError) as error:
            validate(composed("+data=coco_lspet", wrong), RootSettings)
        assert wrong.partition("=")[0].removesuffix(".lspet") in str(error.value)


def test_an_unknown_setting_is_named_with_a_similar_one():
    with pytest.raises(DistilPoseError, match=r"data\.paddin .*data\.padding"):
        validate(composed("+data=coco", "+data.paddin=1"), RootSettings)
