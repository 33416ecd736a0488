"""Parameters and multiply-accumulates equal the release's, to the digit."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from distilpose.models import count_gmacs, count_parameters, create_model


@pytest.mark.parametrize(
    ("name", "parameters", "gmacs"),
    [
        ("student_s", 5_364_101, 2.3826),
        ("student_l", 21_265_637, 10.3252),
        ("teacher_hrnet_w48", 69_411_360, 17.0281),
        ("teacher_stem", 6_620_736, 2.4039),
    ],
)
def test_published_size(name, parameters, gmacs):
    model = create_model(name)
    assert count_parameters(model) == parameters
    assert round(count_gmacs(model), 4) == gmacs


@pytest.mark.parametrize("name", ["student_xs", "teacher_xs"])
def test_small_models_are_small_and_share_their_width(name):
    assert 0.01 < count_gmacs(create_model(name)) < 0.06
    assert create_model("student_xs").encoder.width == create_model("teacher_xs").encoder.width


def test_counting_leaves_the_model_as_it_was():
    model = create_model("student_xs").train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    count_gmacs(model)
    assert model.training
    assert not any(m._forward_hooks for m in model.modules())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_the_rule_by_hand():
    class Tiny(nn.Module):
        input_size = (4, 6)

        def __init__(self):
            super().__init__()
            self.layers = nn.Sequential(
                nn.Conv2d(3, 5, 3, padding=1), nn.BatchNorm2d(5), nn.ReLU(), nn.Upsample(scale_factor=2)
            )
            self.linear = nn.Linear(12, 7)

        def forward(self, images):
            return self.linear(self.layers(images))

    by_hand = 4 * 6 * 5 * (27 + 1) + 2 * 120 + 120 + 4 * 120 + 5 * 8 * 12 * 7
    assert count_gmacs(Tiny()) == pytest.approx(by_hand / 1e9, rel=1e-12)


def test_a_parameter_that_is_passed_to_a_module():
    """As the class tokens of PiT and CaiT."""

    class Tiny(nn.Module):
        input_size = (4, 6)

        def __init__(self):
            super().__init__()
            self.token, self.linear = nn.Parameter(torch.zeros(1, 6)), nn.Linear(6, 7)

        def forward(self, images):
            return self.linear(images), self.linear(self.token)

    model = Tiny()
    assert count_gmacs(model) == pytest.approx((3 * 4 + 1) * 6 * 7 / 1e9, rel=1e-12)
    assert all(parameter.grad is None for parameter in model.parameters())
