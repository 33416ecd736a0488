from __future__ import annotations

import functools

import cv2
import numpy as np
import pytest
import torch

from distilpose import create_model
from distilpose.callbacks import DistillationHealth
from distilpose.callbacks.health import calibration
from distilpose.losses import DistillationLoss, HeatmapMSE
from distilpose.modules import DistillationModule, FrozenTeacher, HeatmapModule
from distilpose.outputs import StudentOutput
from distilpose.skeleton import COCO

SIZE = {"depth": 1, "width": 32, "heads": 2}
adam = functools.partial(torch.optim.Adam, lr=1e-3)


def test_calibration_error_of_perfectly_calibrated_scores_is_zero():
    similarity = np.linspace(0, 1, 1001)
    centres, means, counts, error = calibration(similarity, similarity)
    assert error == pytest.approx(0, abs=1e-12)
    np.testing.assert_allclose(centres, means)
    assert counts.sum() == 1001


def test_calibration_of_constant_overconfidence():
    similarity = np.tile([0.2, 0.4], 50)
    centres, means, counts, error = calibration(np.full(100, 0.9), similarity)
    assert (centres.tolist(), means.tolist(), counts.tolist()) == (pytest.approx([0.9]), pytest.approx([0.3]), [100])
    assert error == pytest.approx(0.6)


def test_calibration_weighs_bins_by_count():
    scores, similarity = np.r_[np.full(30, 0.25), np.full(10, 0.75)], np.r_[np.full(30, 0.35), np.full(10, 0.35)]
    assert calibration(scores, similarity)[-1] == pytest.approx(0.75 * 0.1 + 0.25 * 0.4)


def test_calibration_of_scores_out_of_range_and_of_none():
    assert calibration(np.array([-1.0, 3.0]), np.array([0.0, 1.0]))[-1] == 0
    assert np.isnan(calibration(np.zeros(0), np.zeros(0))[-1])


@pytest.fixture(autouse=True)
def without_gradients():
    """Switch gradients off, as Lightning does in a validation."""
    with torch.no_grad():
        yield


def student(monkeypatch, loss):
    teacher = FrozenTeacher(create_model("teacher_xs", **SIZE)) if loss.needs_teacher else None
    module = DistillationModule(create_model("student_xs", **SIZE), loss, teacher, optimizer=adam)
    logged = {}
    monkeypatch.setattr(module, "log_dict", lambda values, **_: logged.update(values))
    return module.eval(), logged


@pytest.mark.parametrize("confidence", [0.01, 0.0])
def test_a_picture_and_figures_of_a_student(trainer, folder, monkeypatch, confidence):
    module, logged = student(monkeypatch, DistillationLoss(confidence=confidence))
    health = DistillationHealth(folder, persons=4)
    health.on_validation_epoch_end(trainer, module)
    health.on_train_epoch_end(trainer, module)
    health.on_validation_epoch_end(trainer, module)
    assert [path.name for path in folder.iterdir()] == ["health.png"]
    assert cv2.imread(str(folder / "health.png")).std() > 5
    assert ("health/calibration_error" in logged) == (confidence > 0)
    assert logged["health/sigma_median"] > 0
    assert health.terms == [{"epoch": 3, "regression": 0.5}]


def test_a_perfect_student_has_full_similarity(trainer, folder, monkeypatch):
    module, logged = student(monkeypatch, DistillationLoss())
    dataset = trainer.datamodule.val_dataset()
    keypoints = torch.stack([dataset[index].keypoints for index in (0, 1)])
    ones = torch.ones(keypoints.shape[:2])
    perfect = StudentOutput(keypoints, ones, torch.full_like(keypoints, 2.0), ones[..., None], ones[..., None])
    monkeypatch.setattr(type(module.model), "forward", lambda *_: perfect)
    monkeypatch.setattr(type(dataset), "__len__", lambda _: 2)
    DistillationHealth(folder, persons=2).on_validation_epoch_end(trainer, module)
    assert float(logged["health/joint_oks"]) == pytest.approx(1, abs=1e-5)
    assert float(logged["health/calibration_error"]) == pytest.approx(0, abs=1e-5)
    assert float(logged["health/sigma_median"]) == 2
    # an error of one crop pixel: COCO's formula, with an area of 0.53 times the box's
    persons = [dataset[index] for index in (0, 1)]
    shifted = perfect._replace(keypoints=keypoints + torch.tensor([1 / 48, 0]))
    monkeypatch.setattr(type(module.model), "forward", lambda *_: shifted)
    DistillationHealth(folder, persons=2).on_validation_epoch_end(trainer, module)
    boxes = torch.stack([person.bbox for person in persons])
    pixels = torch.stack([1 / person.warp[:, :2].det().abs().sqrt() for person in persons])
    joint_oks = torch.exp(
        -(pixels**2 / (2 * 0.53 * boxes[:, 2:].prod(-1)))[:, None] / (2 * torch.tensor(COCO.sigmas)) ** 2
    )
    labelled = torch.stack([person.weights for person in persons]) > 0
    assert float(logged["health/joint_oks"]) == pytest.approx(float(joint_oks[labelled].mean()), rel=1e-4)


def test_terms_are_kept_after_a_resume(trainer, folder, monkeypatch):
    module, _ = student(monkeypatch, DistillationLoss())
    first, second = DistillationHealth(folder), DistillationHealth(folder)
    first.on_train_epoch_end(trainer, module)
    second.load_state_dict(first.state_dict())
    trainer.current_epoch = 4
    second.on_train_epoch_end(trainer, module)
    assert [row["epoch"] for row in second.terms] == [3, 4]
    assert [row["epoch"] for row in first.terms] == [3]


def test_a_teacher_has_no_health_picture(trainer, folder):
    module = HeatmapModule(create_model("teacher_xs", **SIZE), HeatmapMSE(), optimizer=adam)
    DistillationHealth(folder).on_validation_epoch_end(trainer, module)
    assert not folder.exists()
