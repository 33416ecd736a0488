"""Frozen parts, learning rates by block of the backbone, gradient checkpointing and channels last."""

from __future__ import annotations

import functools

import pytest
import torch
from torch import nn

from distilpose import create_model
from distilpose.errors import DistilPoseError
from distilpose.losses import DistillationLoss, HeatmapMSE
from distilpose.modules import DistillationModule, HeatmapModule
from distilpose.modules.fine_tuning import parameter_groups

SMALL = {"depth": 2, "width": 32, "heads": 2, "input_size": (64, 48)}
PLAIN = {"visual_token": 0, "keypoint_token": 0, "confidence": 0, "simulated_heatmap": 0}
adam = functools.partial(torch.optim.Adam, lr=0.1)


# on backbones of timm: a convolutional one that is cut, and a transformer
TIMM = [("tf_efficientnet_lite0", {}), ("vit_tiny_patch16_224", {"backbone_options": {"depth": 3}})]


def student(backbone=None, backbone_options=None, **options):
    torch.manual_seed(0)
    of_timm = {"backbone": backbone, "backbone_options": backbone_options, "strides": [16], "patch_size": [1, 1]}
    model = create_model(**({"name": "student_timm", **of_timm} if backbone else {"name": "student_xs"}), **SMALL)
    return DistillationModule(model, DistillationLoss(**PLAIN), optimizer=adam, **options)


def step(module):
    optimizer = module._optimizer()
    output = module.model(torch.randn(4, 3, 64, 48, generator=torch.Generator().manual_seed(1)))
    loss = output.keypoints.square().sum() + output.scores.sum()
    loss.backward()
    optimizer.step()
    return loss


@pytest.mark.parametrize("frozen", [["backbone"], ["encoder.layers.0", "head"]])
def test_frozen_parts_and_their_batch_statistics_do_not_change(frozen):
    module = student(frozen=frozen)
    assert not module.model.get_submodule(frozen[0]).training  # before the first call of train() too
    before = {name: value.clone() for name, value in module.model.state_dict().items()}
    step(module)
    for name, value in module.model.state_dict().items():
        if name.startswith(tuple(f"{part}." for part in frozen)):
            assert torch.equal(value, before[name]), name
    changed = [name for name, value in module.model.state_dict().items() if not torch.equal(value, before[name])]
    assert any(name.startswith("encoder.layers.1") for name in changed)
    module.eval()
    assert not module.train().model.get_submodule(frozen[0]).training
    assert module.model.encoder.layers[1].training


@pytest.mark.parametrize(
    ("frozen", "facts"),
    [
        (["backbon"], ["method.frozen=['backbon']", "student_xs", "backbone", "encoder.layers"]),
        (["backbone.stem.9"], ["method.frozen=['backbone.stem.9']", "backbone.stem"]),
        (["backbone", "encoder", "head"], ["method.frozen=['backbone', 'encoder', 'head']", "all of student_xs"]),
        ([""], ["method.frozen=['']", "all of student_xs"]),
    ],
)
def test_mistakes_in_frozen_parts(frozen, facts):
    with pytest.raises(DistilPoseError) as error:
        student(frozen=frozen)
    assert all(fact in str(error.value) for fact in facts), str(error.value)


def test_rates_fall_from_block_to_block():
    backbone = nn.Module()
    backbone.conv1, backbone.bn1 = nn.Linear(2, 2), nn.Linear(2, 2)
    backbone.layer1, backbone.norm = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 3)), nn.Linear(3, 3)
    module = nn.ModuleDict({"backbone": backbone, "head": nn.Linear(3, 4)})
    groups = parameter_groups(module, backbone, rate=1.0, decay=0.5)
    assert [(len(group["params"]), group["lr"]) for group in groups] == [(4, 0.25), (2, 0.5), (4, 1.0), (2, 1.0)]
    grouped = {id(p) for group in groups for p in group["params"]}
    assert grouped == {id(p) for p in module.parameters()}


def test_a_schedule_keeps_the_ratios():
    module = student(layer_decay=0.5)
    optimizer = module._optimizer()
    rates = [group["lr"] for group in optimizer.param_groups]
    assert rates[-1] == 0.1
    assert sorted(set(rates)) == [pytest.approx(0.1 * 0.5**power) for power in reversed(range(len(set(rates))))]
    torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.1)
    assert [group["lr"] for group in optimizer.param_groups] == [pytest.approx(0.1 * rate) for rate in rates]


@pytest.mark.parametrize(("backbone", "options"), TIMM)
def test_frozen_and_decayed_backbones_of_timm(backbone, options):
    module = student(backbone, **options, frozen=["backbone"])
    before = {name: value.clone() for name, value in module.model.backbone.state_dict().items()}
    step(module)
    assert all(torch.equal(value, before[name]) for name, value in module.model.backbone.state_dict().items())
    module = student(backbone, **options, layer_decay=0.5)
    rate_of = {id(p): group["lr"] for group in module._optimizer().param_groups for p in group["params"]}
    assert rate_of.keys() == {id(parameter) for parameter in module.parameters()}
    blocks = module.model.backbone.network.get_submodule("model.blocks" if "vit" in backbone else "blocks")
    rates = [{rate_of[id(parameter)] for parameter in block.parameters()} for block in blocks]
    rates = [max(block) for block in rates if block]  # the last block of a stage has the stage's highest rate
    assert rates == sorted(rates)
    assert rates[0] < rates[-1] == rate_of[id(module.model.head.linear.weight)] == 0.1


@pytest.mark.parametrize(("backbone", "options"), [(None, {}), TIMM[0]])
def test_channels_last_gives_the_same_gradients_within_rounding(backbone, options):
    plain, last = (student(backbone, **options, channels_last=on) for on in (False, True))
    layouts = []
    convolutions = [module for module in last.model.backbone.modules() if isinstance(module, nn.Conv2d)]
    for convolution in convolutions[1:]:  # the first one has crops of three channels
        convolution.register_forward_hook(
            lambda _, inputs, output: layouts.append(output.is_contiguous(memory_format=torch.channels_last))
        )
    assert step(last).item() == pytest.approx(step(plain).item(), rel=1e-4)
    assert layouts
    assert all(layouts)
    for (name, one), other in zip(plain.named_parameters(), last.named_parameters(), strict=True):
        if one.grad is not None:
            assert (one.grad - other[1].grad).norm() <= 0.02 * one.grad.norm() + 1e-4, name  # batch norm of four crops


@pytest.mark.parametrize(("backbone", "options"), [(None, {}), *TIMM])
def test_gradient_checkpointing_gives_the_same_gradients(backbone, options):
    plain, recomputing = (student(backbone, **options, gradient_checkpointing=on) for on in (False, True))
    assert torch.equal(step(plain), step(recomputing))
    for (name, one), other in zip(plain.named_parameters(), recomputing.parameters(), strict=True):
        assert torch.equal(one.grad, other.grad) if one.grad is not None else other.grad is None, name
    saved = []
    features = plain.model.backbone(torch.randn(2, 3, 64, 48)).detach()
    with torch.autograd.graph.saved_tensors_hooks(lambda t: (saved.append(t.numel()), t)[1], lambda t: t):
        sizes = []
        for module in (plain, recomputing):
            saved.clear()
            module.model.encoder(features)
            sizes.append(sum(saved))
    assert sizes[1] < 0.5 * sizes[0]


def test_gradient_checkpointing_needs_an_encoder():
    plain = create_model("teacher_timm", backbone="convnext_atto", input_size=(64, 48))
    with pytest.raises(DistilPoseError, match=r"method\.gradient_checkpointing.*teacher_timm"):
        HeatmapModule(plain, HeatmapMSE(), optimizer=torch.optim.Adam, gradient_checkpointing=True)
