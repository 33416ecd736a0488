"""Why a run has ended, from its checkpoint."""

from __future__ import annotations

import pytest
from omegaconf import OmegaConf

from distilpose.runs.ended import ended_message, has_ended


def content(epochs=2, seconds=0.0, stopped=0, steps=10):
    callbacks = {"Timer": {"time_elapsed": {"train": seconds}}, "EarlyStopping{}": {"stopped_epoch": stopped}}
    return {"CocoDataModule": {"epochs": epochs, "batches": 0}, "callbacks": callbacks, "global_step": steps}


@pytest.mark.parametrize(
    ("trainer", "state", "ended", "why"),
    [
        ({"max_epochs": 2}, {}, True, "trainer.max_epochs=2 is reached: resume='run' trainer.max_epochs=N"),
        ({"max_epochs": 4, "max_steps": 10}, {}, True, "trainer.max_epochs=4 or trainer.max_steps=10 is reached"),
        (
            {"max_epochs": 4, "max_time": "00:00:01:00"},
            {"seconds": 60.2},
            True,
            "trainer.max_time=00:00:01:00 is used up",
        ),
        ({"max_epochs": 4, "time": "00:00:01:00", "max_time": "${.time}"}, {"seconds": 60.2}, True, "trainer.max_time"),
        ({"max_epochs": 4, "max_time": {"minutes": 1}}, {"seconds": 60.2}, True, "trainer.max_time"),
        ({"max_epochs": 4, "max_time": {"minutes": 1}}, {"seconds": 59.0}, False, None),
        (
            {"max_epochs": 4},
            {"stopped": 1},
            False,
            "callbacks.early_stopping stopped it in epoch 1: resume='run' trains",
        ),
        ({"max_epochs": 2}, {"stopped": 1}, True, "trainer.max_epochs=2 is reached"),
        ({"max_epochs": 4}, {}, False, None),
    ],
)
def test_the_reason_is_the_one_that_ended_it(trainer, state, ended, why):
    cfg = OmegaConf.create({"trainer": trainer})
    assert has_ended(cfg, content(**state)) == ended
    if why is not None:
        assert f"the run has ended, as {why}" in ended_message(cfg, content(**state), "run")
