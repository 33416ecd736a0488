from __future__ import annotations

import functools
from types import SimpleNamespace

import pytest
import torch
from lightning import LightningModule
from torch.utils.data import default_collate

from distilpose import create_model
from distilpose.callbacks import GradientShare, gradient_share
from distilpose.callbacks.gradient_share import draw_shares, gradient_shares
from distilpose.callbacks.metrics_table import read_table
from distilpose.losses import DistillationLoss, HeatmapMSE
from distilpose.modules import DistillationModule, FrozenTeacher, HeatmapModule
from distilpose.outputs import PoseBatch

SIZE = {"depth": 1, "width": 32, "heads": 2}
adam = functools.partial(torch.optim.Adam, lr=1e-3)


@pytest.fixture
def batch(trainer):
    dataset = trainer.datamodule.val_dataset()
    return PoseBatch(*default_collate([dataset[index] for index in range(3)]))


def student(**weights) -> DistillationModule:
    torch.manual_seed(0)
    loss = DistillationLoss(**weights)
    teacher = FrozenTeacher(create_model("teacher_xs", **SIZE)) if loss.needs_teacher else None
    return DistillationModule(create_model("student_xs", **SIZE), loss, teacher, optimizer=adam).train()


def test_shares_are_the_norms_of_the_gradients(batch):
    module = student()
    shares = gradient_shares(module, batch)
    assert set(shares) == {"regression", "visual_token", "keypoint_token", "confidence", "simulated_heatmap"}
    assert all(share > 0 for share in shares.values())
    assert sum(shares.values()) == pytest.approx(1)
    module.model.eval()
    lengths = {}
    for name in shares:  # one forward pass a term, by backward() instead of autograd.grad()
        output = module.model(batch.image)
        output.visual_tokens.retain_grad()
        output.keypoint_tokens.retain_grad()
        module.loss(output, module.teacher(batch), batch.keypoints, batch.weights)[name].backward()
        gradients = [part.grad for part in (output.visual_tokens, output.keypoint_tokens) if part.grad is not None]
        lengths[name] = sum(part.square().sum() for part in gradients).sqrt().item()
    for name, share in shares.items():
        assert share == pytest.approx(lengths[name] / sum(lengths.values()), rel=1e-4), name


def test_a_weight_ten_times_as_high_is_a_gradient_ten_times_as_large(batch):
    low, high = (gradient_shares(student(simulated_heatmap=weight), batch) for weight in (1.0, 10.0))
    ratio = high["simulated_heatmap"] / high["regression"] / (low["simulated_heatmap"] / low["regression"])
    assert ratio == pytest.approx(10, rel=1e-4)


def test_without_a_teacher_the_regression_has_the_full_share(batch):
    shares = gradient_shares(student(visual_token=0, keypoint_token=0, confidence=0, simulated_heatmap=0), batch)
    assert shares["regression"] == 1
    assert sum(shares.values()) == 1


def test_a_term_has_no_share_before_its_ramp(batch):
    module = student(ramps={"simulated_heatmap": [0.2, 0.6]})
    assert gradient_shares(module, batch, progress=0.1)["simulated_heatmap"] == 0
    assert gradient_shares(module, batch, progress=0.9)["simulated_heatmap"] > 0


def test_measuring_does_not_change_the_training(batch):
    module = student()
    module.model.backbone.eval()  # as a frozen part, which must stay in eval mode
    modes = [part.training for part in module.modules()]
    before = {name: value.clone() for name, value in module.state_dict().items()}
    random = torch.get_rng_state()
    gradient_shares(module, batch)
    assert torch.equal(random, torch.get_rng_state())
    assert modes == [part.training for part in module.modules()]
    assert all(parameter.grad is None for parameter in module.parameters())
    for name, value in module.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_it_measures_every_n_batches(batch, monkeypatch, tmp_path):
    module, steps = student(), []
    logged = {}
    monkeypatch.setattr(module, "log_dict", lambda values, **_: (logged.update(values), steps.append(index)))
    callback = GradientShare(tmp_path, every=3)
    for index in range(7):
        callback.on_train_batch_start(SimpleNamespace(), module, batch, index)
    assert steps == [0, 3, 6]
    assert set(logged) == {f"train/share_{name}" for name in gradient_shares(module, batch)}


def test_a_teacher_has_no_such_shares(batch, monkeypatch, tmp_path):
    module, logged = HeatmapModule(create_model("teacher_xs", **SIZE), HeatmapMSE(), optimizer=adam), []
    monkeypatch.setattr(module, "log_dict", lambda values, **_: logged.append(values))
    GradientShare(tmp_path, every=1).on_train_batch_start(SimpleNamespace(), module, batch, 0)
    assert logged == []


def test_shares_are_drawn_as_stacked_areas():
    epochs = [
        {"epoch": 1, "regression": 0.75, "confidence": 0.25, "token": 0.0},
        {"epoch": 2, "regression": 1.0, "confidence": 0.0},
    ]
    for picture, shares in ((draw_shares(epochs[:1]), [0.75, 0.25]), (draw_shares(epochs), None)):
        flat = picture.reshape(-1, 3).astype(int)
        # the areas' colours are matplotlib's first two, at 80 % over white
        areas = [(abs(flat - colour).max(axis=1) <= 2).sum() for colour in ([76, 146, 195], [255, 153, 62])]
        assert all(areas)
        if shares is not None:
            assert [area / sum(areas) for area in areas] == pytest.approx(shares, abs=0.02)


def test_a_training_is_the_same_with_and_without_it(run_train, tiny_coco, tmp_path):
    root = tiny_coco()
    arguments = [
        "data=custom", f"data.root={root}", "data.batch_size=4", "data.num_workers=0", "augmentation=none",
        "model=student_xs", "model.depth=1", "model.width=32", "model.heads=2", "loss=regression", "logger=none",
        "trainer.accelerator=cpu", "trainer.max_epochs=2", "trainer.num_sanity_val_steps=0", "callbacks=diagnosis",
        "~callbacks.pictures", "~callbacks.health", "~callbacks.details",
    ]  # fmt: skip
    for name, override in (("with", "callbacks.gradient_share.every=1"), ("without", "~callbacks.gradient_share")):
        status, stderr = run_train(*arguments, override, f"hydra.run.dir={name}")
        assert status == 0, stderr
    tables = {name: read_table(tmp_path / name / "metrics.csv") for name in ("with", "without")}
    assert [row.pop("train/share_regression") for row in tables["with"]] == [1, 1]
    assert (tmp_path / "with" / "pictures" / "shares.png").is_file()
    for row, plain in zip(tables["with"], tables["without"], strict=True):
        shared = row.keys() - {"seconds"}
        assert {name: row[name] for name in plain.keys() & shared} == {
            name: plain[name] for name in plain.keys() & shared
        }
        assert {name for name in shared - plain.keys() if not name.startswith("train/share_")} == set()


def test_a_warning_for_a_teacher(tmp_path, monkeypatch):
    warnings = []
    monkeypatch.setattr(gradient_share.log, "warning", warnings.append)
    callback = GradientShare(tmp_path)
    callback.on_fit_start(SimpleNamespace(is_global_zero=False), LightningModule())
    assert warnings == []
    callback.on_fit_start(SimpleNamespace(is_global_zero=True), LightningModule())
    assert "callbacks.gradient_share" in warnings[0]
    assert "teacher" in warnings[0]
