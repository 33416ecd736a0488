"""Small models with random weights."""

from __future__ import annotations

import pytest
import torch

from distilpose.inference import Predictor
from distilpose.models import create_model
from distilpose.webpage.poses import Poses


@pytest.fixture(scope="session")
def networks():
    """Two students and a teacher."""
    torch.manual_seed(0)
    return {name: create_model(kind) for name, kind in
            (("one", "student_xs"), ("two", "student_xs"), ("teacher", "teacher_xs"))}  # fmt: skip


@pytest.fixture(scope="session")
def poses(networks):
    one, two, teacher = (Predictor(model, device="cpu", flip_test=True) for model in networks.values())
    return Poses(one, "one", two, "two", teacher, "teacher")
