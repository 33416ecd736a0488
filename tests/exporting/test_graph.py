"""Tracing and folding: the exported graph gives what PyTorch gives, for any batch."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from distilpose.evaluation import predict_crops
from distilpose.exporting.graph import ExportedPose, fold_batch_norm, trace
from distilpose.models import create_model


def with_statistics(name: str) -> nn.Module:
    """A tiny model whose batch statistics are not zeros and ones."""
    torch.manual_seed(0)
    model = create_model(name, width=32, depth=1).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.uniform_(-1, 1)
            module.running_var.uniform_(0.5, 2)
            module.weight.data.uniform_(0.5, 2)
            module.bias.data.uniform_(-1, 1)
    return model


@pytest.mark.parametrize("name", ["student_xs", "teacher_xs"])
def test_exported_is_what_evaluation_predicts(name):
    model = with_statistics(name)
    images = torch.randn(2, 3, 64, 48)
    with torch.no_grad():
        outputs = ExportedPose(model, normalise=False, extra=True)(images)
        expected = predict_crops(model, images, flip_test=False)
    assert torch.equal(outputs[0], expected[0])
    assert torch.equal(outputs[1], expected[1])


def test_untrained_scores_count_as_one():
    model = create_model("student_xs", width=32, depth=1, scores_trained=False).eval()
    with torch.no_grad():
        _, scores = ExportedPose(model, normalise=False, extra=False)(torch.randn(2, 3, 64, 48))
    assert torch.equal(scores, torch.ones(2, 17))


def test_trace_folds_and_takes_any_batch():
    model = with_statistics("student_xs")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    program = trace(model, normalise=True, extra=True)
    assert not any("batch_norm" in str(node.target) for node in program.graph.nodes)
    assert not any("running_mean" in name for name in program.state_dict)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    mean, std = (torch.tensor(value).view(3, 1, 1) for value in (model.mean, model.std))
    for count in (1, 3, 8):
        crops = torch.randint(0, 256, (count, 64, 48, 3), dtype=torch.uint8)
        plain = (crops.permute(0, 3, 1, 2).float() / 255 - mean) / std
        with torch.no_grad():
            outputs, expected = program.module()(crops), model(plain)
        for one, other in zip(outputs, (expected.keypoints, expected.scores, expected.sigmas), strict=True):
            assert (one - other).abs().max() < 1e-5


def test_half_is_near_and_gives_float32():
    model = with_statistics("student_xs")
    images = torch.randn(2, 3, 64, 48)
    with torch.no_grad():
        outputs, expected = trace(model, False, False, half=True).module()(images), model(images)
    assert outputs[0].dtype == torch.float32
    assert 0 < (outputs[0] - expected.keypoints).abs().max() < 1e-3


def test_a_convolution_used_twice_is_not_folded():
    class Forked(nn.Module):
        def __init__(self):
            super().__init__()
            self.convolution, self.norm = nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4)
            self.norm.running_mean.uniform_(-1, 1)

        def forward(self, images):
            features = self.convolution(images)
            return self.norm(features) + features

    network = Forked().eval()
    images = torch.randn(2, 3, 8, 8)
    program = torch.export.export(network, (images,))
    assert fold_batch_norm(program, network.state_dict()) == 0
    with torch.no_grad():
        assert torch.allclose(program.module()(images), network(images))
