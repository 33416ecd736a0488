"""Stem, HRNet and timm backbones, the latter two against timm itself."""

from __future__ import annotations

import time
import urllib.error
import urllib.request

import pytest
import timm
import torch

from distilpose.errors import DistilPoseError
from distilpose.models import create_model, timm_weights
from distilpose.models.hrnet import HRNetW48
from distilpose.models.stem import Stem


def test_stem_initialisation_and_shape():
    stem = Stem(64, 4)
    assert stem(torch.randn(1, 3, 64, 48)).shape == (1, 256, 16, 12)
    assert stem.layer1[2].conv2.weight.std().item() == pytest.approx(0.001, rel=0.05)
    assert stem.bn1.momentum == 0.1
    assert stem.layer1[0].downsample is not None
    assert stem.layer1[1].downsample is None


@pytest.fixture(scope="module")
def timm_hrnet():
    torch.manual_seed(0)
    return timm.create_model("hrnet_w48", features_only=True, feature_location="").eval()


@pytest.mark.parametrize("stages", [3, 4])
def test_hrnet_is_timms(timm_hrnet, stages):
    network = HRNetW48(stages).eval()
    weights = timm_hrnet.state_dict()
    network.load_state_dict({name: weights[name] for name in network.state_dict()})
    images = torch.randn(1, 3, 64, 96)
    expected = []
    last = getattr(timm_hrnet, f"stage{stages}")[-1]
    hook = last.register_forward_hook(lambda module, inputs, output: expected.append(output[0]))
    with torch.no_grad():
        timm_hrnet(images)
        hook.remove()
        torch.testing.assert_close(network(images), expected[0])


@pytest.mark.parametrize("stages", [3, 4])
def test_hrnet_uses_every_parameter_and_takes_odd_sizes(stages):
    net = HRNetW48(stages)
    features = net(torch.randn(1, 3, 48, 36))
    assert features.shape == (1, 48, 12, 9)
    features.sum().backward()
    assert all(parameter.grad is not None for parameter in net.parameters())


def test_imagenet_weights_come_from_timms_cache(timm_hrnet, tmp_path, monkeypatch):
    weights = timm.create_model("hrnet_w48").state_dict()
    path = tmp_path / "hrnet.pth"
    torch.save(weights, path)
    monkeypatch.setattr(timm_weights, "try_to_load_from_cache", lambda repository, filename: str(path))
    for name in ("teacher_hrnet_w48", "student_l"):
        model = create_model(name, pretrained=True)
        assert all(torch.equal(value, weights[key]) for key, value in model.backbone.state_dict().items())
        assert "pretrained" not in model.config


@pytest.mark.parametrize("name", ["teacher_hrnet_w48", "student_timm"])
def test_without_a_network_the_error_comes_at_once(name, monkeypatch):
    def unreachable(url, timeout):
        raise urllib.error.URLError("Name or service not known")

    monkeypatch.setattr(timm_weights, "try_to_load_from_cache", lambda repository, filename: None)
    monkeypatch.setattr(urllib.request, "urlopen", unreachable)
    start = time.perf_counter()
    with pytest.raises(DistilPoseError, match=r"(hrnet_w48|resnet18).*model\.pretrained=false"):
        create_model(name, pretrained=True)
    assert time.perf_counter() - start < 10


def test_a_failing_download_names_the_network_and_a_way_out(tmp_path):
    damaged = {"pretrained_cfg_overlay": {"file": str(tmp_path / "absent.pth")}}
    with pytest.raises(DistilPoseError, match=r"resnet18.*pretrained=False"):
        create_model("student_timm", pretrained=True, backbone_options=damaged)


def test_the_stem_has_no_imagenet_weights():
    with pytest.raises(DistilPoseError, match=r"student_s.*stem.*pretrained=False"):
        create_model("student_s", pretrained=True)
