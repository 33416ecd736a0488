"""Starting from the weights of a model with the same joints in another order, or with other joints."""

from __future__ import annotations

import logging
import random

import pytest
import torch

from distilpose.errors import DistilPoseError
from distilpose.models import copy_backbone, create_model, start_from, use_normalisation
from distilpose.skeleton import COCO_NAMES, Skeleton

XS = {"depth": 1, "widths": [8, 8, 8, 8], "out_channels": 8, "width": 16, "heads": 2, "input_size": (32, 24)}
KINDS = [("student_xs", XS), ("teacher_xs", XS | {"hidden_dim": 16})]
LSP_NAMES = [f"{side}{part}" for side in "RL" for part in ("Ankle", "Knee", "Hip", "Wrist", "Elbow", "Shoulder")]
CROPS = torch.randn(3, 3, 32, 24, generator=torch.Generator().manual_seed(0))


def model_of(names, kind="student_xs", options=XS):
    return create_model(kind, skeleton=Skeleton.from_names(names), **options).eval()


def joints_of(model):
    """(N, K, ...) what a model says about each joint of the crops."""
    with torch.no_grad():
        output = model(CROPS)
    return (
        output.heatmaps if model.kind == "teacher" else torch.cat([output.keypoints, output.scores[..., None]], dim=-1)
    )


@pytest.mark.parametrize(("kind", "options"), KINDS)
@pytest.mark.parametrize("seed", range(4))
def test_joints_in_another_order(kind, options, seed, caplog):
    source = model_of(COCO_NAMES, kind, options)
    names = random.Random(seed).sample(COCO_NAMES, 17)
    model = model_of(names, kind, options)
    with caplog.at_level(logging.INFO):
        start_from(model, source, "a.ckpt")
    order = [COCO_NAMES.index(name) for name in names]
    torch.testing.assert_close(joints_of(model), joints_of(source)[:, order])
    assert "17 of 17 joints start from a.ckpt" in caplog.text
    assert "new" not in caplog.text


def test_the_same_joints_are_copied_bit_for_bit(caplog):
    source, model = model_of(COCO_NAMES), model_of(COCO_NAMES)
    with caplog.at_level(logging.INFO):
        start_from(model, source, "a.ckpt")
    assert all(torch.equal(value, source.state_dict()[name]) for name, value in model.state_dict().items())
    assert not caplog.records


def test_other_joints(caplog):
    """17 joints of COCO start 12 of Leeds Sports' 14, whose tool names them otherwise; two are new."""
    names = [*LSP_NAMES, "neck", "head_top"]
    source, model = model_of(COCO_NAMES), model_of(names)
    fresh = model.encoder.keypoint_tokens.detach().clone()
    with caplog.at_level(logging.INFO):
        start_from(model, source, "a.ckpt")
    sides = {"R": "right", "L": "left"}
    order = [COCO_NAMES.index(f"{sides[name[0]]}_{name[1:].lower()}") for name in LSP_NAMES]
    tokens = model.encoder.keypoint_tokens
    assert torch.equal(tokens[:, :12], source.encoder.keypoint_tokens[:, order])
    assert torch.equal(tokens[:, 12:], fresh[:, 12:])
    assert (
        "12 of 14 joints start from a.ckpt, matched by name; new: neck, head_top; not used: nose, left_eye"
        in caplog.text
    )


def test_heat_maps_without_tokens():
    """A plain heat-map network has a channel for each joint."""
    options = {"input_size": (64, 64), "backbone": "resnet18"}
    source, model = (model_of(names, "teacher_timm", options) for names in (["a", "b", "c"], ["c", "new", "a"]))
    with torch.no_grad():
        for parameter in (source.head.convolution.weight, source.head.convolution.bias):
            parameter.copy_(torch.randn_like(parameter))
    fresh = model.head.convolution.weight.detach().clone()
    start_from(model, source, "a.ckpt")
    for name in ("weight", "bias"):
        one, other = getattr(model.head.convolution, name), getattr(source.head.convolution, name)
        assert torch.equal(one[[0, 2]], other[[2, 0]])
    assert torch.equal(model.head.convolution.weight[1], fresh[1])


def test_joints_without_names_keep_their_position(caplog):
    source, model = model_of([f"joint_{k}" for k in range(3)]), model_of(["tip", "base", "middle"])
    with caplog.at_level(logging.INFO):
        start_from(model, source, "a.ckpt")
    assert torch.equal(model.encoder.keypoint_tokens, source.encoder.keypoint_tokens)
    assert "matched by position" in caplog.text


def test_no_joint_in_common_is_a_warning(caplog):
    start_from(model_of(["tip", "base"]), model_of(["left_hip", "right_hip"]), "a.ckpt")
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "0 of 2 joints start from a.ckpt" in record.getMessage()


def test_another_architecture_is_an_error_as_before():
    with pytest.raises(DistilPoseError, match="another model"):
        start_from(model_of(COCO_NAMES), model_of(COCO_NAMES, options=XS | {"width": 32}), "a.ckpt")


@pytest.mark.parametrize(
    ("option", "theirs", "ours"),
    [
        ("heads", 4, 2),
        ("patch_size", (2, 4), (4, 2)),
        ("strides", (8, 16), (16, 8)),
        ("backbone", "tf_efficientnet_lite0", "efficientnet_lite0"),
        ("backbone_options", {"act_layer": "silu"}, None),
    ],
)
def test_weights_of_the_same_shapes_that_mean_something_else(option, theirs, ours):
    options = {"backbone": "efficientnet_lite0", "strides": (8, 16), "patch_size": (1, 1), "heads": 2, "width": 16}
    options |= {"depth": 1, "input_size": (64, 64)}
    if option == "patch_size":
        options["strides"] = (8,)
    source, model = (create_model("student_timm", **options | {option: value}) for value in (theirs, ours))
    assert all(value.shape == model.state_dict()[name].shape for name, value in source.state_dict().items())
    with pytest.raises(DistilPoseError) as error:
        start_from(model, source, "a.ckpt")
    assert f"model.{option}" in str(error.value)
    assert "a.ckpt" in str(error.value)


def test_another_backbone_of_the_same_shapes():
    teacher = create_model("teacher_timm", backbone="tf_efficientnet_lite0", input_size=(64, 64))
    options = {"depth": 1, "width": 16, "heads": 2, "strides": (4,), "input_size": (64, 64), "patch_size": (4, 4)}
    with pytest.raises(DistilPoseError, match=r"model\.backbone=efficientnet_lite0.*tf_efficientnet_lite0"):
        copy_backbone(create_model("student_timm", backbone="efficientnet_lite0", **options), teacher)
    tagged = create_model(
        "student_timm", backbone="tf_efficientnet_lite0.in1k", backbone_options={"drop_rate": 0.1}, **options
    )
    copy_backbone(tagged, teacher)


def test_a_given_mean_and_std(caplog):
    model = model_of(COCO_NAMES)
    before = joints_of(model)
    use_normalisation(model, None, None)
    use_normalisation(model, list(model.network_mean), None)
    assert not caplog.records
    assert torch.equal(joints_of(model), before)
    use_normalisation(model, [0.5, 0.5, 0.5], None)
    assert (model.network_mean, model.network_std) == ((0.5, 0.5, 0.5), model.std)
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert all(fact in record.getMessage() for fact in ("model.mean", "0.485", "0.5, 0.5, 0.5"))
    assert not torch.allclose(joints_of(model), before)


def test_a_teachers_backbone_has_no_joints():
    """What a teacher's checkpoint starts is the backbone, the same for any joints."""
    names = random.Random(0).sample(COCO_NAMES, 17)
    student, teacher = model_of(names), model_of(COCO_NAMES, "teacher_xs", XS | {"hidden_dim": 16})
    tokens = student.encoder.keypoint_tokens.detach().clone()
    copy_backbone(student, teacher)
    assert torch.equal(student.encoder.keypoint_tokens, tokens)
    assert all(17 not in value.shape for value in student.backbone.state_dict().values())
