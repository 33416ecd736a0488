from __future__ import annotations

import math

import pytest
import torch

from distilpose.diagnosis.inherited_errors import TokenDistance, inherited_errors


def test_inherited_errors():
    # one person per row: truth at 0; the teacher is at 100 in the first three and right in the last
    target = torch.zeros(4, 1, 2)
    teacher = torch.tensor([100.0, 100, 100, 0]).reshape(4, 1, 1) * torch.tensor([1.0, 0])
    student = torch.tensor([95.0, 60, 2, 1]).reshape(4, 1, 1) * torch.tensor([1.0, 0])
    right, teacher_right = torch.tensor([[0], [0], [1], [1]]) > 0, torch.tensor([[0], [0], [0], [1]]) > 0
    result = inherited_errors(
        student, teacher, target, torch.ones(4, 1) > 0, right, teacher_right, torch.full((4,), 20.0)
    )
    assert (result.teacher_wrong, result.teacher_right) == (3, 1)
    assert result.wrong_too == pytest.approx(2 / 3)
    assert result.follows == pytest.approx(1 / 3)  # 60 is too far from the teacher
    assert result.right_too == 1


def test_limits_of_following_the_teacher():
    """Truth at 0, teacher at 30, PCK distance 20: 11 to 15 is within it, but not nearer to the teacher."""
    for place, follows in ((14, 0), (15, 0), (16, 1), (50, 1), (51, 0)):
        student, teacher = torch.tensor([[[place, 0.0]]]), torch.tensor([[[30.0, 0.0]]])
        labelled, wrong = torch.tensor([[True]]), torch.tensor([[False]])
        result = inherited_errors(student, teacher, torch.zeros(1, 1, 2), labelled, wrong, wrong, torch.tensor([20.0]))
        assert result.follows == follows, place


def test_persons_without_a_reference_length_and_joints_without_label():
    places = torch.zeros(2, 2, 2)
    student = places + torch.tensor([5.0, 0.0]).reshape(2, 1, 1)  # the second person alone repeats the error
    labelled = torch.tensor([[1, 0], [1, 1]]) > 0
    wrong = torch.zeros(2, 2) > 0
    result = inherited_errors(student, places, places + 50, labelled, wrong, wrong, torch.tensor([0.0, 10.0]))
    assert (result.teacher_wrong, result.wrong_too, result.follows) == (3, 1, 1)
    assert math.isnan(result.right_too)


def test_copied_tokens_and_mean_tokens():
    teacher = torch.randn(64, 5, 8, generator=torch.Generator().manual_seed(0)) + 3
    copy, blind = TokenDistance(), TokenDistance()
    for part in teacher.split(20):
        copy.add(part, part)
        blind.add(teacher.mean(0).expand_as(part), part)
    assert (copy.relative, copy.cosine) == (0, pytest.approx(1))
    assert blind.relative == pytest.approx(1)
    assert copy.persons == 64


def test_tokens_by_the_formula():
    generator = torch.Generator().manual_seed(1)
    student, teacher = torch.randn(2, 30, 4, 6, generator=generator).double()
    distance = TokenDistance()
    for parts in zip(student.split(7), teacher.split(7), strict=True):
        distance.add(*parts)
    spread = (teacher - teacher.mean(0)).square().sum()
    assert distance.relative == pytest.approx(float((student - teacher).square().sum() / spread))
    cosine = (student * teacher).sum(-1) / (student.norm(dim=-1) * teacher.norm(dim=-1))
    assert distance.cosine == pytest.approx(float(cosine.mean()))


def test_constant_tokens_have_no_variance():
    distance = TokenDistance()
    distance.add(torch.ones(3, 2, 2), torch.full((3, 2, 2), 2.0))
    assert math.isnan(distance.relative)
    assert math.isnan(TokenDistance().cosine)
