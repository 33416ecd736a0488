"""Backbones of timm: any stride, several fused, nothing behind them, and vision transformers, against timm's own features."""

from __future__ import annotations

import pytest
import timm
import torch
import torch.nn.functional as F
from torch import nn

from distilpose.errors import DistilPoseError
from distilpose.models import copy_backbone, count_gmacs, count_parameters, create_model, load_model, save_model
from distilpose.models.timm_backbone import TimmBackbone

SMALL = {"depth": 1, "width": 16, "heads": 2}
SIZE = (128, 96)
IMAGES = torch.randn(2, 3, *SIZE, generator=torch.Generator().manual_seed(0))
CELLS = {"patch_size": (1, 1)}


def student(backbone, strides, **options):
    given = SMALL | CELLS | {"input_size": SIZE} | options
    return create_model("student_timm", backbone=backbone, strides=strides, **given)


def features_of_timm(backbone: TimmBackbone, name: str, images=IMAGES) -> dict[int, torch.Tensor]:
    """All features of timm's whole network with the backbone's weights, by stride."""
    whole = timm.create_model(name, features_only=True)
    lacking = whole.load_state_dict(backbone.network.state_dict(), strict=False)
    assert not lacking.unexpected_keys
    reductions = whole.feature_info.reduction()
    with torch.no_grad():
        return dict(zip(reductions, whole.eval()(images), strict=True))


@pytest.mark.parametrize("name", ["resnet18", "tf_efficientnet_lite0", "mobilenetv3_small_050"])
@pytest.mark.parametrize("stride", [4, 16])
def test_a_feature_is_timms(name, stride):
    backbone = TimmBackbone(name, SIZE, strides=[stride]).eval()
    with torch.no_grad():
        features = backbone(IMAGES)
    assert features.shape == (2, backbone.out_channels, SIZE[0] // stride, SIZE[1] // stride)
    assert torch.equal(features, features_of_timm(backbone, name)[stride])


def test_fused_features_are_resized_to_the_first():
    backbone = TimmBackbone("resnet18", SIZE, strides=[16, 8, 32]).eval()
    with torch.no_grad():
        features = backbone(IMAGES)
    expected = features_of_timm(backbone, "resnet18")
    finer = expected[8].unfold(2, 2, 2).unfold(3, 2, 2).mean((-2, -1))
    coarser = F.interpolate(expected[32], size=(8, 6), mode="bilinear", align_corners=False)
    assert features.shape == (2, backbone.out_channels, 8, 6) == (2, 256 + 128 + 512, 8, 6)
    torch.testing.assert_close(features, torch.cat([expected[16], finer, coarser], dim=1))


def test_coarse_cells_that_reach_beyond_the_crop():
    features = TimmBackbone("resnet18", (80, 48), strides=[16, 32])(torch.randn(1, 3, 80, 48))
    assert features.shape == (1, 256 + 512, 5, 3)


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        ("tf_efficientnet_lite0", ("conv_stem", "bn1", "blocks.0", "blocks.1", "blocks.2", "blocks.3", "blocks.4")),
        ("resnet18", ("conv1", "bn1", "layer1", "layer2", "layer3")),
    ],
)
def test_layers_behind_the_feature_are_gone(name, kept):
    model = student(name, [16])
    expected = sum(p.numel() for part, p in timm.create_model(name).named_parameters() if part.startswith(kept))
    assert sum(p.numel() for p in model.backbone.parameters()) == expected
    assert all(p.requires_grad for p in model.backbone.parameters())


@pytest.mark.parametrize("name", ["tf_efficientnet_lite0", "hrnet_w18_small"])
def test_every_trained_parameter_has_a_gradient(name):
    model = student(name, [4])
    output = model(IMAGES)
    (output.keypoints.sum() + output.scores.sum() + output.sigmas.sum()).backward()
    assert all((p.grad is not None) == p.requires_grad for p in model.parameters())
    assert count_parameters(model) == sum(p.numel() for p in model.parameters() if p.requires_grad)


def test_layers_without_a_gradient_that_are_needed_stay(monkeypatch):
    """A network that comes with frozen layers."""

    def with_frozen_layer(name, pretrained, **options):
        network = timm.create_model("resnet18", zero_init_last=False, **options, features_only=True)
        network.layer1.requires_grad_(False)
        return network

    monkeypatch.setattr("distilpose.models.timm_backbone.create_features", with_frozen_layer)
    backbone = TimmBackbone("resnet18", SIZE, strides=[8]).eval()
    assert len(list(backbone.network.layer1.parameters())) > 0
    assert all(not parameter.requires_grad for parameter in backbone.network.layer1.parameters())


def test_files_with_layers_that_are_left_out_now_still_load(tmp_path):
    """Earlier versions kept the later layers of an EfficientNet, frozen."""
    model = student("tf_efficientnet_lite0", [4], patch_size=(4, 3)).eval()
    whole = timm.create_model("tf_efficientnet_lite0", features_only=True)
    later = {
        f"backbone.network.{name}": value for name, value in whole.state_dict().items() if name.startswith("blocks.5")
    }
    model.load_state_dict({**model.state_dict(), **later})
    with pytest.raises(RuntimeError, match="nonsense"):
        model.load_state_dict({**model.state_dict(), "backbone.network.nonsense": torch.zeros(1)})


# with the size of crops, the stride and, for a fast test, options that make the network shallow
TRANSFORMERS = {
    "vit_tiny_patch16_224": (SIZE, 16, {"depth": 3}),
    "deit3_small_patch16_224": (SIZE, 16, {"depth": 3}),
    "vit_small_patch14_dinov2": ((112, 84), 14, {"depth": 3}),
    "vit_small_patch16_dinov3": (SIZE, 16, {"depth": 3}),
    "eva02_tiny_patch14_224": ((112, 84), 14, {"depth": 3}),
}


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_the_patch_tokens_of_vision_transformers(name):
    if name not in timm.list_models():
        pytest.skip(f"timm {timm.__version__} has no {name}")
    size, stride, options = TRANSFORMERS[name]
    model = student(name, [stride], input_size=size, backbone_options=options).eval()
    rows, columns = size[0] // stride, size[1] // stride
    assert model.encoder.grid == (rows, columns)
    assert model.heatmap_size == (size[0] // 4, size[1] // 4)
    images = torch.randn(1, 3, *size)
    network = model.backbone.network.model
    with torch.no_grad():
        tokens = network.forward_features(images)[:, network.num_prefix_tokens :]  # behind the last norm
        expected = tokens.transpose(1, 2).unflatten(2, (rows, columns))
        torch.testing.assert_close(model.backbone(images), expected)
    model.train()(images).keypoints.sum().backward()
    assert all(parameter.grad is not None for parameter in model.backbone.parameters())


def test_a_tensor_under_several_names_is_saved(tmp_path):
    """CoaT's position encodings belong to several blocks."""
    model = student("coat_lite_tiny", [8], backbone_options={"serial_depths": (2, 2, 1, 1)}, input_size=(64, 64)).eval()
    state = model.state_dict()
    assert len({value.data_ptr() for value in state.values()}) < len(state)
    loaded = load_model(save_model(model, tmp_path / "student.safetensors"))
    images = torch.randn(1, 3, 64, 64)
    assert torch.equal(loaded(images).keypoints, model(images).keypoints)


def test_positions_are_resampled_to_the_crop(tmp_path):
    from safetensors.torch import save_file

    whole = timm.create_model("vit_tiny_patch16_224", depth=3)
    save_file(whole.state_dict(), tmp_path / "vit.safetensors")
    model = student(
        "vit_tiny_patch16_224", [16], pretrained=tmp_path / "vit.safetensors", backbone_options={"depth": 3}
    )
    positions = model.backbone.network.model.pos_embed
    assert positions.shape == (1, 1 + 8 * 6, 192)
    expected = timm.layers.resample_abs_pos_embed(whole.pos_embed, (8, 6))
    torch.testing.assert_close(positions, expected)
    assert model.network_mean == (0.5, 0.5, 0.5)
    loaded = load_model(save_model(model.eval(), tmp_path / "student.safetensors"))
    assert torch.equal(loaded(IMAGES).keypoints, model(IMAGES).keypoints)


def test_gmacs_cover_every_linear_layer_and_convolution():
    """EVA computes queries, keys and values without calling its linear layer."""
    model = student("eva02_tiny_patch14_224", [14], input_size=(112, 84), backbone_options={"depth": 3})
    tokens, width, hidden = 8 * 6 + 1, 192, 512
    block = tokens * (4 * width * width + 3 * width * hidden)
    norms = tokens * (2 * 3 * width + 2 * hidden)
    embedding = 48 * width * (14 * 14 * 3 + 1)
    total = embedding + 3 * block + 3 * norms
    backbone = model.backbone
    backbone.input_size = (112, 84)
    assert count_gmacs(backbone) == pytest.approx(total / 1e9, rel=0.01)


@pytest.mark.parametrize(
    ("backbone", "size", "strides", "facts"),
    [
        ("vit_tiny_patch16_224", (256, 192), [4], ["vit_tiny_patch16_224", "stride 16", "[4]", "model.strides=[16]"]),
        ("efficientvit_m0", (256, 192), [8], ["16, 32, 64", "stride 8", "model.strides=[16]"]),
        ("resnet18", (96, 96), [12], ["'resnet18'", "2, 4, 8, 16, 32", "stride 12"]),
        ("vit_small_patch14_dinov2", (256, 192), [14], ["256 x 192", "14 x 14", "252 x 196", "28"]),
        ("resnet18", (120, 96), [16], ["120 x 96", "16 x 16", "112 x 96", "128 x 96"]),
        ("hf-hub:timm/resnet18.a1_in1k", (128, 96), [4], ["hf-hub:timm/resnet18.a1_in1k", "model.pretrained=FILE"]),
        ("resnet81", (128, 96), [4], ["'resnet81'", "timm.list_models"]),
        ("inception_v3", (128, 96), [4], ["'inception_v3'", "128 x 96", "32 x 24"]),
        ("hrnet_w18_small", (64, 48), [4], ["'hrnet_w18_small'", "64 x 48", "model.input_size"]),
    ],
)
def test_unsuitable_backbones_raise_an_error(backbone, size, strides, facts):
    patch = (4, 3) if strides == [4] else (1, 1)
    with pytest.raises(DistilPoseError) as error:
        student(backbone, strides, input_size=size, patch_size=patch)
    assert all(fact in str(error.value) for fact in facts), str(error.value)


@pytest.mark.parametrize("option", ["no_such_option", "pretrained"])
def test_options_that_timm_does_not_take(option):
    with pytest.raises(DistilPoseError, match=rf"resnet18.*{option}"):
        student("resnet18", [4], backbone_options={option: True})


def test_the_image_size_is_set_where_the_network_needs_it():
    model = student("swin_tiny_patch4_window7_224", [4], input_size=(64, 48), patch_size=(4, 3))
    assert model(torch.randn(1, 3, 64, 48)).keypoints.shape == (1, 17, 2)
    assert "backbone_options" in model.config
    assert model.config["backbone_options"] is None


def test_plain_teachers_fuse_onto_their_heat_maps_cells():
    teacher = create_model("teacher_timm", backbone="resnet18", strides=[4, 16], input_size=SIZE)
    assert teacher(IMAGES).heatmaps.shape == (2, 17, 32, 24)
    assert isinstance(teacher.head.convolution, nn.Conv2d)
    assert teacher.head.convolution.in_channels == 64 + 256
    with pytest.raises(DistilPoseError, match=r"teacher_timm.*begin with 4"):
        create_model("teacher_timm", backbone="resnet18", strides=[16])


def test_a_backbone_starts_from_a_teachers():
    model = student("tf_efficientnet_lite0", [4, 8])
    teacher = create_model(
        "teacher_timm", backbone="tf_efficientnet_lite0", strides=[4, 8, 16], input_size=SIZE, mean=(0.5, 0.5, 0.5)
    )
    assert copy_backbone(model, teacher) == len(model.backbone.state_dict())
    assert model.network_mean == (0.5, 0.5, 0.5)
    for name, value in model.backbone.state_dict().items():
        assert torch.equal(value, teacher.backbone.state_dict()[name])
    with pytest.raises(DistilPoseError, match="teacher_timm"):
        copy_backbone(student("tf_efficientnet_lite0", [32]), teacher)
