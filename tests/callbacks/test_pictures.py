from __future__ import annotations

import functools

import cv2
import numpy as np
import pytest
import torch

from distilpose import create_model
from distilpose.callbacks import Pictures
from distilpose.callbacks.pictures import draw_persons
from distilpose.errors import DistilPoseError
from distilpose.losses import DistillationLoss, HeatmapCrossEntropy
from distilpose.modules import DistillationModule, FrozenTeacher, HeatmapModule
from distilpose.visualization.drawing import write_picture
from distilpose.visualization.samples import sample_persons

SIZE = {"depth": 1, "width": 32, "heads": 2}
ALONE = {"visual_token": 0, "keypoint_token": 0, "confidence": 0, "simulated_heatmap": 0}
adam = functools.partial(torch.optim.Adam, lr=1e-3)


@pytest.fixture(autouse=True)
def without_gradients():
    """Switch gradients off, as Lightning does in a validation."""
    with torch.no_grad():
        yield


def module(kind):
    if kind == "teacher":
        return HeatmapModule(create_model("teacher_xs", **SIZE), HeatmapCrossEntropy(), optimizer=adam)
    student = create_model("student_xs", **SIZE)
    if kind == "alone":
        return DistillationModule(student, DistillationLoss(**ALONE), optimizer=adam)
    teacher = FrozenTeacher(create_model("teacher_xs", **SIZE))
    return DistillationModule(student, DistillationLoss(), teacher, optimizer=adam)


@pytest.mark.parametrize(("kind", "columns"), [("distilled", 6), ("alone", 4), ("teacher", 6)])
def test_one_row_per_person_and_one_column_per_picture(trainer, folder, kind, columns):
    Pictures(folder, persons=3).on_validation_epoch_end(trainer, module(kind).eval())
    (path,) = folder.iterdir()
    assert path.name == "persons_epoch_0003.png"
    height, width, _ = cv2.imread(str(path)).shape
    # crops of 64 x 48 are shown three times as large, with captions and gaps about them
    assert 3 * 192 <= height < 3 * 192 + 100
    assert columns * 144 <= width < columns * 144 + 100


def test_the_same_persons_each_time_spread_over_the_set(trainer):
    first, second = (sample_persons(trainer, 3, torch.device("cpu")) for _ in range(2))
    assert torch.equal(first.annotation_id, second.annotation_id)
    assert torch.equal(first.image, second.image)
    all_ids = trainer.datamodule.val_dataset().instances.annotation_ids
    assert first.annotation_id.tolist() == [int(all_ids[index]) for index in (0, (len(all_ids) - 1) // 2, -1)]
    assert len(sample_persons(trainer, 100, torch.device("cpu")).image) == len(all_ids)


def test_columns_match_their_titles(trainer):
    trained = module("distilled").eval()
    batch = sample_persons(trainer, 2, torch.device("cpu"))

    def columns():
        picture = draw_persons(trained, batch)
        return [picture[:, 8 + 152 * column : 152 * (column + 1)] for column in range(6)]  # 144 wide, 8 apart

    before = columns()
    for parameter in trained.teacher.model.head.parameters():
        parameter.add_(0.5)
    after = columns()
    same = [np.array_equal(a, b) for a, b in zip(before, after, strict=True)]
    assert same[:3] == [True, True, True]  # crop, ground truth and prediction do not depend on the teacher
    assert not same[3]
    assert not same[5]


@pytest.mark.parametrize("change", [{"sanity_checking": True}, {"is_global_zero": False}])
def test_nothing_is_drawn_in_a_sanity_check_or_by_other_processes(trainer, folder, change):
    vars(trainer).update(change)
    Pictures(folder).on_validation_epoch_end(trainer, module("alone").eval())
    assert not folder.exists()


def test_write_error_of_a_picture_is_reported(tmp_path):
    with pytest.raises(DistilPoseError, match="File name too long"):
        write_picture(tmp_path / f"{'a' * 300}.png", np.zeros((4, 4, 3), np.uint8))
