"""Models by name, and errors for those that cannot be built."""

from __future__ import annotations

import json

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf

from distilpose.cli.paths import CONFIG_DIR
from distilpose.errors import DistilPoseError
from distilpose.models import copy_backbone, count_parameters, create_model, list_models, model_spec
from distilpose.outputs import StudentOutput, TeacherOutput
from distilpose.skeleton import COCO, Skeleton

XS = {"depth": 1, "widths": [8, 8, 8, 8], "out_channels": 8, "width": 16, "heads": 2}


def test_names_are_sorted_and_split_by_kind():
    names = list_models()
    assert names == sorted(names)
    assert {"student_s", "student_l", "student_xs", "teacher_hrnet_w48", "teacher_stem", "teacher_xs"} <= set(names)
    assert sorted(list_models("student") + list_models("teacher")) == names
    assert [name for name in names if model_spec(name).backbone_from_teacher] == ["student_l"]


@pytest.mark.parametrize("name", list_models())
def test_every_model_runs_and_rebuilds_from_its_config(name):
    spec = model_spec(name)
    model = create_model(name).eval()
    config = json.loads(json.dumps(model.config))  # it has plain containers only
    assert config == model.config
    with torch.no_grad():
        output = model(torch.randn(1, 3, *spec.input_size))
    height, width = model.heatmap_size
    assert (height, width) == (spec.input_size[0] // 4, spec.input_size[1] // 4)
    if model.kind == "student":
        assert isinstance(output, StudentOutput)
        assert output.keypoints.shape == output.sigmas.shape == (1, 17, 2)
        assert output.scores.shape == (1, 17)
        assert (output.sigmas > 0).all()
        assert ((output.keypoints > 0) & (output.keypoints < 1)).all()
    else:
        assert isinstance(output, TeacherOutput)
        assert output.heatmaps.shape == (1, 17, height, width)
    if model.encoder is None:
        assert (output.visual_tokens, output.keypoint_tokens) == (None, None)
    else:
        stride, patch = model.config.get("strides", [4])[0], model.config["patch_size"]
        tokens = height * 4 // (stride * patch[0]) * (width * 4 // (stride * patch[1]))
        assert output.visual_tokens.shape == (1, tokens, model.encoder.width)
    again = create_model(**config)
    assert {k: v.shape for k, v in again.state_dict().items()} == {k: v.shape for k, v in model.state_dict().items()}
    assert (again.skeleton, again.input_size, again.config) == (model.skeleton, model.input_size, config)
    assert not any("position" in key for key in model.state_dict())


def half_a_crop(name, **options):
    """A model with random weights for small crops, and two of them."""
    torch.manual_seed(0)
    model = create_model(name, input_size=(128, 96), **options).eval()
    return model, torch.randn(2, 3, 128, 96)


def first(output):
    return output.keypoints if isinstance(output, StudentOutput) else output.heatmaps


@pytest.mark.slow
@pytest.mark.parametrize("name", list_models())
def test_every_model_runs_in_bfloat16(name):
    model, images = half_a_crop(name)
    with torch.no_grad():
        expected = first(model(images))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            output = first(model(images))
    assert output.dtype == torch.float32
    assert 0 < (output - expected).abs().max() < 0.02 * max(1, expected.abs().max())


@pytest.mark.slow
@pytest.mark.parametrize("name", list_models())
def test_every_model_compiles(name):
    """With two of its encoder's equal layers. HRNet is only traced: to build its hundreds of convolutions takes minutes."""
    model, images = half_a_crop(name, **{"depth": 2} if "depth" in model_spec(name).options else {})
    backend = "aot_eager" if name in ("student_l", "teacher_hrnet_w48", "teacher_timm") else "inductor"
    with torch.no_grad():
        expected = first(model(images))
        compiled = torch.compile(model, backend=backend)
        torch.testing.assert_close(first(compiled(images)), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["student_lite", "student_base"])
@pytest.mark.parametrize("size", [(128, 96), (256, 192)])
def test_students_with_a_token_for_each_cell(name, size):
    model = create_model(name, input_size=size).eval()
    with torch.no_grad():
        output = model(torch.randn(1, 3, *size))
    assert output.visual_tokens.shape[1] == size[0] // 16 * (size[1] // 16)
    assert model.heatmap_size == (size[0] // 4, size[1] // 4)
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_the_named_students_have_their_sizes():
    assert 2e6 < count_parameters(create_model("student_lite")) < 3e6
    assert 9e6 < count_parameters(create_model("student_base")) < 11e6


@pytest.mark.parametrize("name", list_models())
def test_config_file_is_the_registrys_default(name):
    node = OmegaConf.load(CONFIG_DIR / "model" / f"{name}.yaml")
    node.pop("defaults", None)
    assert node._target_ == "distilpose.create_model"
    assert node.pretrained is (name == "teacher_hrnet_w48")
    node.pretrained = False
    assert instantiate(node, skeleton=COCO.to_dict()).config == create_model(name).config


@pytest.mark.parametrize(("count", "size"), [(1, (48, 36)), (14, (64, 96)), (23, (80, 12))])
@pytest.mark.parametrize("name", ["student_xs", "teacher_xs"])
def test_any_count_and_any_size_the_patches_divide(name, count, size):
    model = create_model(name, num_keypoints=count, input_size=size, **XS).eval()
    output = model(torch.randn(2, 3, *size))
    assert output.keypoint_tokens.shape == (2, count, 16)
    assert output.visual_tokens.shape == (2, size[0] * size[1] // 192, 16)
    with pytest.raises(DistilPoseError, match=rf"\(N, 3, {size[0]}, {size[1]}\)"):
        model(torch.randn(2, 3, size[0], size[1] + 4))


def test_sizes_that_do_not_divide_name_those_that_do():
    with pytest.raises(DistilPoseError, match=r"250 x 190.*16.*12.*240 x 180.*256 x 192"):
        create_model("student_s", input_size=(250, 190))
    with pytest.raises(DistilPoseError, match="16 x 12"):
        create_model("student_s", input_size=(2, 2))


def test_wrong_names_and_options():
    with pytest.raises(DistilPoseError, match=r"'studnet_s'.*student_l.*student_s"):
        create_model("studnet_s")
    with pytest.raises(TypeError, match="widht"):
        create_model("student_xs", widht=3)
    with pytest.raises(DistilPoseError, match=r"student_l.*'stem_channels'.*patch_size"):
        create_model("student_l", stem_channels=3)


def test_skeleton_and_count():
    body = Skeleton.from_names(["left_hand", "right_hand", "head"])
    model = create_model("student_xs", skeleton=body, **XS)
    assert model.skeleton == body
    assert model.num_keypoints == 3
    assert create_model("student_xs", skeleton=body.to_dict(), **XS).skeleton == body
    assert create_model("student_xs", **XS).skeleton == COCO
    assert create_model("student_xs", num_keypoints=3, skeleton=body, **XS).skeleton == body
    with pytest.raises(DistilPoseError, match=r"num_keypoints=5 .* 3 joints \(left_hand"):
        create_model("student_xs", num_keypoints=5, skeleton=body, **XS)


def test_copy_backbone_takes_all_or_nothing():
    student, teacher = create_model("student_xs", **XS), create_model("teacher_xs", **XS)
    teacher.backbone.stem[0][1].running_mean.fill_(3.0)
    assert copy_backbone(student, teacher) == len(student.backbone.state_dict())
    for name, value in student.backbone.state_dict().items():
        assert torch.equal(value, teacher.backbone.state_dict()[name])
    wider = create_model("teacher_xs", **(XS | {"out_channels": 12}))
    with pytest.raises(DistilPoseError, match=r"student_xs.*teacher_xs.*backbone_from_teacher=false"):
        copy_backbone(student, wider)


def test_copy_backbone_hrnet():
    student, teacher = create_model("student_l"), create_model("teacher_hrnet_w48")
    assert copy_backbone(student, teacher) == len(student.backbone.state_dict()) == 930
    name = "stage3.3.fuse_layers.0.2.0.weight"
    assert torch.equal(student.backbone.state_dict()[name], teacher.backbone.state_dict()[name])
