from __future__ import annotations

import functools

import pytest
import torch

from distilpose import create_model, load_model
from distilpose.errors import DistilPoseError
from distilpose.losses import DistillationLoss, HeatmapCrossEntropy, HeatmapMSE
from distilpose.modules import DistillationModule, FrozenTeacher, HeatmapModule
from distilpose.modules import distillation as distillation_module
from distilpose.skeleton import Skeleton

adam = functools.partial(torch.optim.Adam, lr=1e-3)


def distillation(student="student_xs", teacher="teacher_xs", loss=None, **options):
    return DistillationModule(
        create_model(student, **options.pop("student_options", {})),
        loss or DistillationLoss(),
        FrozenTeacher(create_model(teacher, **options.pop("teacher_options", {}))),
        optimizer=adam,
        **options,
    )


def test_the_module_does_not_own_its_teacher():
    module = distillation()
    parameters = {id(parameter) for parameter in module.parameters()}
    assert parameters == {id(parameter) for parameter in module.model.parameters()}
    assert all(name.startswith("model.") for name in module.state_dict())
    module.train()
    assert not module.teacher.model.training
    assert module.eval() is module


def test_teacher_moves_with_the_module():
    module = distillation()
    module.double()
    assert next(module.teacher.model.parameters()).dtype == torch.float64
    module.to("meta")
    assert next(module.teacher.model.parameters()).device.type == "meta"


def test_a_training_step_trains_all_of_the_student_and_nothing_of_the_teacher(monkeypatch):
    module = distillation()
    monkeypatch.setattr(module, "log_dict", lambda *args, **kwargs: None)
    before = [parameter.clone() for parameter in module.teacher.model.parameters()]
    batch = _batch()
    module.training_step(batch, 0).backward()
    assert all(parameter.grad is not None for parameter in module.model.parameters())
    assert all(parameter.grad is None for parameter in module.teacher.model.parameters())
    optimizer = module.configure_optimizers()
    optimizer.step()
    for old, parameter in zip(before, module.teacher.model.parameters(), strict=True):
        torch.testing.assert_close(old, parameter)


def _batch(joints=17):
    from distilpose.outputs import PoseBatch

    keypoints, ones = torch.rand(2, joints, 2), torch.ones(2, joints)
    ids = torch.arange(2)
    return PoseBatch(
        torch.randn(2, 3, 64, 48), keypoints, ones, ones, torch.eye(2, 3).expand(2, 2, 3), ids, ids, ones, ones
    )


def test_student_and_teacher_each_see_their_own_pixels(monkeypatch):
    """Both read one batch; a network of another mean converts it."""
    module = distillation(student_options={"mean": (0.5, 0.5, 0.5), "std": (0.25, 0.25, 0.25)})
    seen = {}
    for role, model in (("student", module.model), ("teacher", module.teacher.model)):
        model.backbone.register_forward_pre_hook(lambda _, inputs, role=role: seen.update({role: inputs[0]}))
    batch = _batch()
    module.terms(batch)
    assert torch.equal(seen["teacher"], batch.image)
    mean, std = (torch.tensor(value).view(3, 1, 1) for value in (module.model.mean, module.model.std))
    torch.testing.assert_close(seen["student"], (batch.image * std + mean - 0.5) / 0.25)


def test_scores_are_trained_only_with_a_confidence_term():
    assert distillation().model.scores_trained
    assert not distillation(loss=DistillationLoss(confidence=0)).model.scores_trained


def test_the_teacher_is_dropped_if_no_term_needs_it():
    alone = DistillationLoss(visual_token=0, keypoint_token=0, confidence=0, simulated_heatmap=0)
    assert distillation(loss=alone).teacher is None
    with pytest.raises(DistilPoseError, match="loss=regression"):
        DistillationModule(create_model("student_xs"), DistillationLoss(), None, optimizer=adam)


def test_models_and_losses_of_the_other_method_raise_an_error():
    with pytest.raises(DistilPoseError, match="method=heatmap"):
        DistillationModule(create_model("teacher_xs"), DistillationLoss(), None, optimizer=adam)
    with pytest.raises(DistilPoseError, match="method=distillation"):
        HeatmapModule(create_model("student_xs"), HeatmapMSE(), optimizer=adam)
    with pytest.raises(DistilPoseError, match=r"loss=heatmap_mse.*DistillationLoss"):
        HeatmapModule(create_model("teacher_xs"), DistillationLoss(), optimizer=adam)
    with pytest.raises(DistilPoseError, match=r"loss=distilpose.*HeatmapMSE"):
        DistillationModule(create_model("student_xs"), HeatmapMSE(), None, optimizer=adam)


def test_teachers_that_do_not_fit_raise_an_error():
    with pytest.raises(DistilPoseError, match=r"joint_0.*tail"):
        distillation(
            teacher_options={"skeleton": Skeleton.unnamed(14)},
            student_options={"skeleton": Skeleton.from_names(["tail"])},
        )
    with pytest.raises(DistilPoseError, match=r"input_size=\[128, 96\]"):
        distillation(teacher_options={"input_size": [128, 96]})
    with pytest.raises(DistilPoseError, match=r"\(4, 4, 96\).*\(4, 4, 48\)"):
        distillation(teacher_options={"width": 48})
    # without token terms widths may differ
    distillation(teacher_options={"width": 48}, loss=DistillationLoss(visual_token=0, keypoint_token=0))


def test_project_tokens(monkeypatch):
    different = {"width": 48, "patch_size": [2, 3]}
    with pytest.raises(DistilPoseError, match=r"loss\.project_tokens=true"):
        distillation(teacher_options=different)
    module = distillation(teacher_options=different, loss=DistillationLoss(project_tokens=True))
    logged = {}
    monkeypatch.setattr(module, "log_terms", lambda terms, persons: logged.update(terms))
    module.training_step(_batch(), 0).backward()
    assert logged["visual_token"] > 0
    trained = {id(parameter) for group in module.configure_optimizers().param_groups for parameter in group["params"]}
    projection = list(module.loss.projection.parameters())
    assert {id(parameter) for parameter in projection} <= trained
    assert all(parameter.grad is not None for parameter in module.parameters())
    assert module.loss.projection.visual.weight.shape == (48, 96)
    assert distillation(loss=DistillationLoss(project_tokens=True)).loss.projection is None  # equal shapes
    # tokens that differ only in their grid are resampled
    module = distillation(teacher_options={"patch_size": [2, 3]}, loss=DistillationLoss(project_tokens=True))
    assert module.loss.projection is not None
    assert not list(module.loss.parameters())


@pytest.mark.parametrize(
    ("backbone", "strides", "grid"),
    [("vit_tiny_patch16_224", [16], (4, 3)), ("tf_efficientnet_lite0", [16, 8], (4, 3)), ("resnet18", [8], (8, 6))],
)
def test_tokens_of_students_on_timms_networks(monkeypatch, backbone, strides, grid):
    """Their grids and widths differ from every teacher's."""
    options = {"backbone": backbone, "strides": strides, "patch_size": [1, 1], "input_size": (64, 48), "width": 32}
    module = distillation("student_timm", student_options=options, loss=DistillationLoss(project_tokens=True))
    logged = {}
    monkeypatch.setattr(module, "log_terms", lambda terms, persons: logged.update(terms))
    module.training_step(_batch(), 0).backward()
    assert module.model.encoder.token_shape == (*grid, 32)
    assert logged["visual_token"] > 0
    assert logged["keypoint_token"] > 0
    assert all(parameter.grad is not None for parameter in module.parameters())


def test_only_compared_tokens_are_projected():
    """Distributed training fails on a map that no term uses."""
    module = distillation(teacher_options={"width": 48}, loss=DistillationLoss(visual_token=0, project_tokens=True))
    assert [name for name, _ in module.loss.named_parameters()] == [
        "projection.keypoint.weight",
        "projection.keypoint.bias",
    ]


def test_a_plain_heatmap_network_teaches_without_tokens(monkeypatch):
    options = {"teacher": "teacher_timm", "teacher_options": {"backbone": "resnet10t", "input_size": (64, 48)}}
    with pytest.raises(DistilPoseError, match=r"loss\.visual_token=0"):
        distillation(**options)
    module = distillation(**options, loss=DistillationLoss(visual_token=0, keypoint_token=0))
    logged = {}
    monkeypatch.setattr(module, "log_terms", lambda terms, persons: logged.update(terms))
    module.training_step(_batch(), 0).backward()
    assert logged["simulated_heatmap"] > 0


def test_joints_that_the_teacher_does_not_know_are_learnt_from_labels_alone(monkeypatch, caplog):
    names = ["nose", "left_hip", "tail"]
    monkeypatch.setattr(distillation_module.log, "disabled", False)  # Hydra disables loggers
    with caplog.at_level("INFO", logger="distilpose"):
        module = distillation(student_options={"skeleton": Skeleton.from_names(names)})
    assert "tail" in caplog.text
    monkeypatch.setattr(module, "log_dict", lambda *args, **kwargs: None)
    batch = _batch(3)
    module.training_step(batch._replace(weights=torch.tensor([[0.0, 0, 1]] * 2)), 0).backward()
    # the labelled joint trains the coordinates; the joints without a label train nothing of the head
    assert module.model.head.linear.weight.grad[:2].abs().sum() > 0
    assert module.model.head.linear.weight.grad[3:].abs().sum() == 0


def test_backbone_from_teacher():
    same_backbone = {"widths": [16, 24, 32, 48]}
    module = distillation(backbone_from_teacher=True, teacher_options=same_backbone)
    for name, value in module.model.backbone.state_dict().items():
        torch.testing.assert_close(value, module.teacher.model.backbone.state_dict()[name])
    fresh = distillation(teacher_options=same_backbone)
    same = [
        torch.equal(a, b)
        for a, b in zip(fresh.model.backbone.parameters(), fresh.teacher.model.backbone.parameters(), strict=True)
    ]
    assert not all(same)


@pytest.mark.slow
def test_student_l_starts_from_its_teacher_by_default():
    module = distillation("student_l", "teacher_hrnet_w48")
    expected = module.teacher.model.backbone.state_dict()
    for name, value in module.model.backbone.state_dict().items():
        torch.testing.assert_close(value, expected[name])


@pytest.mark.parametrize(("loss", "activation"), [(HeatmapMSE(), "none"), (HeatmapCrossEntropy(), "softmax")])
def test_a_teachers_checkpoint_keeps_the_activation_of_its_loss(loss, activation, tmp_path):
    module = HeatmapModule(create_model("teacher_xs"), loss, optimizer=adam)
    checkpoint = {"state_dict": module.state_dict()}
    module.on_save_checkpoint(checkpoint)
    torch.save(checkpoint, tmp_path / "teacher.ckpt")
    images = torch.randn(2, 3, 64, 48)
    loaded = load_model(tmp_path / "teacher.ckpt")
    assert loaded.config["heatmap_activation"] == activation
    with torch.no_grad():
        heatmaps = loaded(images).heatmaps
        torch.testing.assert_close(heatmaps, module.model.eval()(images).heatmaps)
    peaks = heatmaps.amax(dim=(-2, -1))
    assert torch.equal(peaks, torch.ones_like(peaks)) == (activation == "softmax")


@pytest.mark.slow
def test_compiled_training_step_gives_the_same_loss(monkeypatch):
    torch.manual_seed(0)
    plain = distillation()
    compiled = DistillationModule(plain.model, DistillationLoss(), plain.teacher, optimizer=adam)
    batch = _batch()
    values = []
    for module in (plain, compiled):
        monkeypatch.setattr(module, "log_dict", lambda *args, **kwargs: None)
        if module is compiled:
            module.model.compile(backend="aot_eager")  # traces as the default does, and needs no C++ compiler
        module.zero_grad()
        loss = module.training_step(batch, 0)
        loss.backward()
        values.append((loss.item(), [parameter.grad.clone() for parameter in module.model.parameters()]))
    assert values[0][0] == pytest.approx(values[1][0], abs=1e-4)
    for a, b in zip(values[0][1], values[1][1], strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-2)
