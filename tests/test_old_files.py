"""Checkpoints and recordings of earlier versions load and give the same outputs as before.

`tests/fixtures/before_rooms` was written by version 0.1 before the package was divided into rooms: a teacher trained by
cross-entropy, a student distilled from it without the confidence term, both as `.ckpt` and as `.safetensors`, the teacher's
recording of five persons, and `outputs.npz` with a batch, the outputs of all three on it and the loss's terms.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from distilpose import load_model
from distilpose.models.checkpoint import saved_padding
from distilpose.outputs import PoseBatch

FILES = Path(__file__).resolve().parent / "fixtures" / "before_rooms"


@pytest.fixture(scope="module")
def stored() -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(value) for name, value in np.load(FILES / "outputs.npz").items()}


def field_values(stored: dict[str, torch.Tensor], name: str) -> dict[str, torch.Tensor]:
    return {key.partition(".")[2]: value for key, value in stored.items() if key.startswith(f"{name}.")}


@pytest.fixture(scope="module")
def batch(stored) -> PoseBatch:
    return PoseBatch(**field_values(stored, "batch"))


def compare(output, expected: dict[str, torch.Tensor]) -> None:
    present = {name: value for name, value in output._asdict().items() if value is not None}
    assert present.keys() == expected.keys()
    for name, value in present.items():
        torch.testing.assert_close(value, expected[name], rtol=0, atol=1e-6)


@pytest.mark.parametrize("suffix", [".ckpt", ".safetensors"])
@pytest.mark.parametrize("kind", ["student", "teacher"])
def test_models(kind, suffix, stored, batch):
    model = load_model(FILES / f"{kind}{suffix}")
    assert (model.kind, model.input_size, model.num_keypoints) == (kind, (32, 24), 5)
    assert model.scores_trained is (kind == "teacher")
    assert model.config.get("heatmap_activation") == ("softmax" if kind == "teacher" else None)
    with torch.no_grad():
        compare(model(batch.image), field_values(stored, "student" if kind == "student" else "frozen"))


def test_the_padding_of_a_saved_model():
    assert saved_padding(FILES / "teacher.safetensors") == 1.25
    assert saved_padding(FILES / "student.safetensors") is None


@pytest.mark.parametrize("kind", ["frozen", "recorded"])
def test_teachers(kind, stored, batch):
    from distilpose.modules import load_recorded, load_teacher

    teacher = load_teacher(FILES / "teacher.ckpt") if kind == "frozen" else load_recorded(FILES / "recording")
    assert teacher.floor == 0  # softmax maps have no noise; the recording stores its floor
    teacher.set_student(load_model(FILES / "student.ckpt"))
    with torch.no_grad():
        compare(teacher(batch), field_values(stored, kind))


def test_the_loss(stored, batch):
    from distilpose.losses import DistillationLoss, TokenShape
    from distilpose.outputs import StudentOutput, TeacherOutput

    loss = DistillationLoss(marginal=0.01, divergence=0.002, moment=0.0015, label_sigma=1.0, agreement=0.2)
    loss.set_teacher(0.0, TokenShape(2, 2, 8), TokenShape(2, 2, 8))
    student = StudentOutput(**field_values(stored, "student"))
    teacher = TeacherOutput(**field_values(stored, "frozen"))
    terms = loss(student, teacher, batch.keypoints, batch.weights, (8, 6), 1.0, batch.labelled)
    expected = field_values(stored, "loss")
    assert terms.keys() == expected.keys()
    for name, value in terms.items():
        torch.testing.assert_close(value, expected[name], rtol=1e-6, atol=1e-9)
