"""The padding of a checkpoint: its file's own, that of the run beside it, or an assumption that is logged."""

from __future__ import annotations

import logging
import shutil

import pytest
from omegaconf import OmegaConf

from distilpose.inference.predictor import Predictor
from distilpose.models import create_model, load_model, save_model
from distilpose.runs.run_of_checkpoint import data_padding, known_padding, run_padding, states_padding

XS = {"depth": 1, "width": 16, "heads": 2}


@pytest.fixture
def file(tmp_path):
    """Write a model into the checkpoints of a run: file(padding in the file, padding in the run's config)."""

    def make(own: float | None, beside: float | None):
        folder = tmp_path / "run" / "checkpoints"
        path = save_model(create_model("student_xs", **XS), folder / "model.safetensors", padding=own)
        if beside is not None:
            (tmp_path / "run" / "config.yaml").write_text(f"data: {{padding: {beside}}}\n")
        return path

    return make


@pytest.mark.parametrize(
    ("own", "beside", "expected", "level", "facts"),
    [
        (1.5, None, 1.5, None, []),
        (1.5, 1.5, 1.5, None, []),
        (1.5, 1.3, 1.5, logging.WARNING, ["padding 1.5", "1.3", "config.yaml"]),  # the file's own value is used
        (None, 1.3, 1.3, None, []),  # a file of an earlier version
        (None, None, 1.25, logging.WARNING, ["1.25 is assumed", "padding=…"]),
    ],
)
def test_where_the_padding_comes_from(file, caplog, own, beside, expected, level, facts):
    path = file(own, beside)
    with caplog.at_level(logging.INFO, "distilpose"):
        assert run_padding(path) == expected
    assert [record.levelno for record in caplog.records] == ([level] if level else [])
    assert all(fact in caplog.text for fact in facts)
    assert known_padding(path) == (None if (own, beside) == (None, None) else expected)
    assert states_padding(path) is not ((own, beside) == (None, None))


def test_a_given_padding_is_used_and_a_difference_is_logged(file, caplog):
    path = file(1.5, None)
    with caplog.at_level(logging.INFO, "distilpose"):
        assert run_padding(path, 1.5) == 1.5
        assert not caplog.records
        assert run_padding(path, 1.1) == 1.1
    assert "padding=1.1" in caplog.text
    assert "1.5" in caplog.text


def test_a_copied_checkpoint_of_a_training_keeps_its_padding(run_train, tiny_coco, tmp_path):
    """Trained with padding 1.6, copied away from its run: it predicts with 1.6, not with 1.25."""
    arguments = [
        "data=custom", f"data.root={tiny_coco()}", "data.batch_size=4", "data.num_workers=0", "augmentation=none",
        "model=student_xs", "model.depth=1", "model.width=32", "model.heads=2", "loss=regression", "logger=none",
        "trainer.accelerator=cpu", "trainer.max_epochs=1", "trainer.num_sanity_val_steps=0", "~callbacks.pictures",
        "~callbacks.health", "~callbacks.details", "~callbacks.progress", "data.padding=1.6", "hydra.run.dir=run",
    ]  # fmt: skip
    status, printed = run_train(*arguments)
    assert status == 0, printed
    for name in ("last.ckpt", "best.ckpt", "recent.ckpt"):
        copy = shutil.copy(tmp_path / "run" / "checkpoints" / name, tmp_path / name)
        assert Predictor(copy, device="cpu").padding == 1.6
        assert (load_model(copy).padding, load_model(copy).flip_test) == (1.6, True)


def test_an_evaluation_shows_persons_as_in_the_training(file, caplog):
    path, data = file(1.5, None), OmegaConf.create({"padding": 1.25})
    with caplog.at_level(logging.INFO, "distilpose"):
        assert data_padding(path, data) == {"padding": 1.5}
    assert "1.5" in caplog.text
    assert "1.25" in caplog.text
    assert data_padding(path, {"padding": 1.5}) == {}
    assert data_padding(path, {}) == {}  # a data set without padding
    assert data_padding(path.with_name("absent.ckpt"), data) == {}
