from __future__ import annotations

import pytest
import torch

from distilpose.evaluation.rescoring import rescore


def test_mean_of_the_joints_above_the_threshold():
    joints = torch.tensor([[0.9, 0.5, 0.2, 0.1], [0.3, -5.0, 0.0, 0.25]])
    scores = rescore(torch.tensor([0.8, 1.0]), joints)
    assert scores.tolist() == pytest.approx([0.8 * 0.7, 0.275], abs=1e-6)


def test_raw_scores_that_are_negative_give_zero_and_keep_the_person():
    scores = rescore(torch.tensor([0.9, 0.9]), torch.tensor([[-1.0, -0.2], [0.1, 0.2]]))
    assert scores.tolist() == [0.0, 0.0]


def test_untrained_scores_of_one_leave_the_box_score():
    boxes = torch.tensor([0.25, 0.5])
    assert rescore(boxes, torch.ones(2, 17)).tolist() == [0.25, 0.5]


def test_a_nan_score_of_a_joint_does_not_count():
    assert rescore(torch.ones(1), torch.tensor([[float("nan"), 0.5]])).tolist() == [0.5]
