from __future__ import annotations

import functools

import cv2
import numpy as np
import pytest
import torch
from lightning.pytorch.loggers import Logger

from distilpose import create_model
from distilpose.callbacks import ValidationDetails, validation_details
from distilpose.callbacks.validation_details import draw_curves, precision_curves
from distilpose.evaluation import evaluate_dataset
from distilpose.losses import DistillationLoss, HeatmapMSE
from distilpose.modules import DistillationModule, FrozenTeacher, HeatmapModule
from distilpose.outputs import Predictions

SIZE = {"depth": 1, "width": 32, "heads": 2}
adam = functools.partial(torch.optim.Adam, lr=1e-3)


class Numbers(Logger):
    """A logger for numbers only."""

    name, version = "numbers", 0

    def __init__(self):
        super().__init__()
        self.logged = {}

    def log_metrics(self, metrics, step=None):
        self.logged.update(metrics)

    def log_hyperparams(self, params):
        pass


def perfect(dataset) -> Predictions:
    """The annotations, except for the first joint of each person, which is far off and has no confidence."""
    persons = dataset.instances
    keypoints = torch.from_numpy(persons.keypoints.copy())
    keypoints[:, 0] += 1000
    scores = torch.ones(keypoints.shape[:2])
    scores[:, 0] = 0
    count = len(keypoints)
    ids = (torch.from_numpy(field) for field in (persons.image_ids, persons.annotation_ids))
    return Predictions(keypoints, scores, *ids, torch.from_numpy(persons.boxes).float(), torch.ones(count))


@pytest.fixture
def module(trainer):
    """A student's or a teacher's module after a validation."""

    def make(kind):
        if kind == "teacher":
            module = HeatmapModule(create_model("teacher_xs", **SIZE), HeatmapMSE(), optimizer=adam)
        else:
            module = DistillationModule(
                create_model("student_xs", **SIZE), DistillationLoss(),
                FrozenTeacher(create_model("teacher_xs", **SIZE)), optimizer=adam,
            )  # fmt: skip
        dataset = trainer.datamodule.val_dataset()
        predictions = perfect(dataset)
        module.validated = (predictions, evaluate_dataset(predictions, dataset))
        return module

    return make


@pytest.mark.parametrize("kind", ["student", "teacher"])
def test_joints_and_a_picture(trainer, folder, module, kind):
    trainer.loggers = [Numbers()]
    ValidationDetails(folder, persons=3).on_validation_end(trainer, module(kind))
    joints = {key.rpartition("/")[2]: value for key, value in trainer.loggers[0].logged.items()}
    assert joints.pop("nose") == 0
    assert len(joints) == 16
    assert set(joints.values()) == {1.0}
    assert [path.name for path in folder.iterdir()] == ["curves.png"]
    assert cv2.imread(str(folder / "curves.png")).std() > 5


def test_confidences_and_errors_are_those_of_labelled_joints(trainer, folder, module, monkeypatch):
    logged = {}
    monkeypatch.setattr(validation_details, "log_histogram", lambda _, key, values: logged.update({key: values}))
    monkeypatch.setattr(validation_details, "log_curves", lambda _, key, curves, *__: logged.update({key: curves}))
    monkeypatch.setattr(
        validation_details, "log_table", lambda _, key, columns, rows, pictures: logged.update(table=rows)
    )
    trainer.loggers = [Numbers()]
    trained = module("student")
    ValidationDetails(folder, persons=3).on_validation_end(trainer, trained)
    dataset = trainer.datamodule.val_dataset()
    labelled = dataset.instances.labelled
    assert len(logged["val_distribution/confidence"]) == len(logged["val_distribution/joint_oks"]) == labelled.sum()
    assert logged["val_distribution/confidence"].mean() == pytest.approx(labelled[:, 1:].sum() / labelled.sum())
    confidence, mean = logged["curves/calibration"]["model"]
    assert confidence.tolist() == [0, 1]
    assert mean == pytest.approx([0, 1], abs=1e-9)  # the confidence of each joint is its correctness
    assert len(logged["table"]) == 3
    for row in logged["table"]:
        index = dataset.instances.annotation_ids.tolist().index(row[1])
        errors = row[6:]
        assert [error is not None for error in errors] == labelled[index, 1:].tolist()
        assert all(error == pytest.approx(0, abs=1e-3) for error in errors if error is not None)
        count = labelled[index].sum()
        assert row[3] == pytest.approx((count - 1) / count, abs=1e-6)
        # 1000 pixels to the right and below, in pixels of a crop of 64 x 48
        scale = float(dataset[index].warp[:, :2].norm(dim=1)[0])
        assert row[5] == pytest.approx(1000 * 2**0.5 * scale, rel=1e-4)
    trained.model.scores_trained = False
    logged.clear()
    ValidationDetails(folder).on_validation_end(trainer, trained)
    assert "curves/calibration" not in logged
    assert "val_distribution/confidence" not in logged


@pytest.mark.parametrize("change", [{"sanity_checking": True}, {"is_global_zero": False}])
def test_nothing_in_a_sanity_check_or_in_other_processes(trainer, folder, module, change):
    vars(trainer).update(change)
    ValidationDetails(folder).on_validation_end(trainer, module("teacher"))
    assert not folder.exists()


def test_the_mean_of_a_curve_is_its_average_precision(trainer, module):
    _, evaluation = module("teacher").validated
    curves = precision_curves(evaluation.precision)
    for name, figure in (("OKS 0.50", "AP50"), ("OKS 0.75", "AP75"), ("mean of 0.50 to 0.95", "AP")):
        recall, values = curves[name]
        assert recall == pytest.approx([number / 100 for number in range(101)])
        assert values.mean() == pytest.approx(evaluation.metrics[figure], abs=1e-12)


def test_there_are_no_curves_without_sigmas_or_persons():
    assert precision_curves(None) == {}
    assert precision_curves(np.full((10, 101), -1.0)) == {}
    assert draw_curves({}, None, np.zeros(0)).ndim == 3
    assert draw_curves({}, np.zeros(0), np.zeros(0)).ndim == 3


@pytest.mark.parametrize("order", [1, -1])
def test_the_table_of_a_limited_validation_has_its_persons_only(trainer, folder, module, monkeypatch, order):
    tables = []
    monkeypatch.setattr(validation_details, "log_table", lambda _, key, columns, rows, pictures: tables.append(rows))
    trainer.loggers = [Numbers()]
    trained = module("student")
    predictions, evaluation = trained.validated
    some = Predictions(*((field.flip(0) if order < 0 else field)[:2] for field in predictions))
    trained.validated = (some, evaluation)
    ValidationDetails(folder, persons=100).on_validation_end(trainer, trained)
    assert {row[1] for row in tables[0]} == set(some.annotation_id.tolist())
