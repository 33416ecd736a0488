"""Weights of a backbone from a file in timm's names, and files that do not fit."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file

from distilpose.errors import DistilPoseError
from distilpose.models import create_model, load_model, save_model, start_from

STUDENT = {"input_size": (64, 48), "depth": 1, "width": 16, "heads": 2, "patch_size": (1, 1), "strides": [16]}
LITE = "tf_efficientnet_lite0"
FILE = os.environ.get("DISTILPOSE_EFFICIENTNET_LITE0", "")


def student(backbone, pretrained=False, **options):
    return create_model("student_timm", backbone=backbone, pretrained=pretrained, **{**STUDENT, **options})


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Writes a network of timm with random weights and batch statistics to a file."""

    def write(name: str, dtype=torch.float32, **options) -> tuple[torch.nn.Module, Path]:
        network = timm.create_model(name, **options).train()
        network(torch.randn(2, 3, 64, 64))
        path = tmp_path_factory.mktemp("weights") / f"{name}.safetensors"
        save_file({key: value.to(dtype) for key, value in network.state_dict().items()}, path)
        return network.eval(), path

    return write


@pytest.mark.parametrize(("name", "classes"), [("resnet18", 1000), (LITE, 1000), (LITE, 7)])
def test_a_file_in_timms_names(saved, name, classes):
    network, path = saved(name, num_classes=classes)
    model = student(name, str(path)).eval()
    images = torch.randn(1, 3, 64, 48)
    with torch.no_grad():
        features = network.forward_intermediates(images, intermediates_only=True)
        assert torch.equal(model.backbone(images), features[-2])
    assert "pretrained" not in model.config


def test_a_file_in_half_precision(saved):
    network, path = saved("resnet18", torch.float16)
    weight = student("resnet18", path).backbone.network.conv1.weight
    assert weight.dtype == torch.float32
    assert torch.equal(weight, network.conv1.weight.half().float())


@pytest.mark.skipif(not FILE, reason="DISTILPOSE_EFFICIENTNET_LITE0 names no file of ImageNet weights")
def test_published_weights():
    model = student(LITE, FILE)
    assert model.network_mean == (0.5, 0.5, 0.5)
    assert model.backbone.network.bn1.running_var.std() > 0


def test_files_of_other_networks_name_tensors(saved):
    _, resnet34 = saved("resnet34")
    for backbone, tensor in (("resnet18", r"layer\d\.\d"), (LITE, "conv_stem.weight"), ("resnet50", "layer1.0.conv3")):
        with pytest.raises(DistilPoseError, match=rf"resnet34\.safetensors.*{backbone}.*{tensor}"):
            student(backbone, resnet34)
    network, wide = saved("resnet18")
    state = network.state_dict()
    state["layer1.0.conv1.weight"] = torch.zeros(64, 64, 5, 5)
    save_file(state, wide)
    with pytest.raises(DistilPoseError, match=r"resnet18.*layer1\.0\.conv1\.weight"):
        student("resnet18", wide)


def test_files_that_cannot_be_read(tmp_path):
    torch.save(timm.create_model("resnet18").state_dict(), tmp_path / "a.pth")
    (tmp_path / "b.safetensors").write_bytes(b"no tensors")
    for name, fact in (
        ("a.pth", "safetensors"),
        ("b.safetensors", "copy"),
        ("c.safetensors", "exist"),
        ("maybe", "true"),
    ):
        with pytest.raises(DistilPoseError) as error:
            student("resnet18", tmp_path / name)
        assert name in str(error.value)
        assert fact in str(error.value)


def test_mean_and_std_are_those_of_the_weights(saved):
    half, imagenet = (0.5, 0.5, 0.5), (0.485, 0.456, 0.406)
    _, path = saved(LITE)
    assert student(LITE).network_mean == imagenet  # as in earlier versions
    assert student(LITE, path).network_mean == student(LITE, path).network_std == half
    assert student(LITE, path, mean=(0.1, 0.2, 0.3)).network_mean == (0.1, 0.2, 0.3)
    assert student("resnet18", saved("resnet18")[1]).network_mean == imagenet


def test_mean_and_std_follow_the_weights(saved, tmp_path):
    model = student(LITE, saved(LITE)[1]).eval()
    path = save_model(model, tmp_path / "student.safetensors")
    loaded, fresh = load_model(path), student(LITE).eval()
    start_from(fresh, loaded, path)
    images = torch.randn(1, 3, 64, 48)
    assert fresh.network_mean == loaded.network_mean == (0.5, 0.5, 0.5)
    assert torch.equal(fresh(images).keypoints, model(images).keypoints)
    assert torch.equal(loaded(images).keypoints, model(images).keypoints)
    again = create_model(**model.config)
    assert (again.network_mean, again.network_std) == (model.network_mean, model.network_std)
