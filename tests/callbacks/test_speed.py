from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from distilpose.callbacks import Speed, speed
from distilpose.callbacks.speed import rates, shares


class Training:
    """A stub trainer with a fake clock, which runs steps of fixed lengths and calls the callback as Lightning does."""

    def __init__(self, monkeypatch, every=2, processes=1, device="cpu"):
        self.now, self.logged = 100.0, []
        monkeypatch.setattr(speed.time, "perf_counter", lambda: self.now)
        logger = SimpleNamespace(log_metrics=lambda figures, step: self.logged.append((step, figures)))
        self.trainer = SimpleNamespace(
            log_every_n_steps=every, is_global_zero=True, world_size=processes, loggers=[logger], global_step=0,
            is_last_batch=False, optimizers=[], callback_metrics={},
        )  # fmt: skip
        self.module = SimpleNamespace(device=torch.device(device))
        self.callback = Speed()

    def epoch(self, steps, persons=6):
        """Run an epoch. Steps are (seconds of waiting, seconds of work)."""
        self.callback.on_train_epoch_start(self.trainer, self.module)
        batch = SimpleNamespace(image=torch.zeros(persons))
        for number, (wait, work) in enumerate(steps):
            self.now += wait
            self.callback.on_train_batch_start(self.trainer, self.module, batch, number)
            self.now += work
            self.trainer.global_step += 1
            self.trainer.is_last_batch = number == len(steps) - 1
            self.callback.on_train_batch_end(self.trainer, self.module, None, batch, number)


def test_throughput_and_waiting(monkeypatch):
    training = Training(monkeypatch, processes=4)
    training.epoch([(1, 1), (1, 3), (1, 1)])
    training.now += 1000  # a validation
    training.epoch([(0, 2)])
    assert [step for step, _ in training.logged] == [2, 3, 4]
    assert [figures["speed/persons_per_second"] for _, figures in training.logged] == [4 * 12 / 6, 4 * 6 / 2, 4 * 6 / 2]
    assert [figures["speed/waiting_share"] for _, figures in training.logged] == [2 / 6, 1 / 2, 0]


def test_memory_is_that_of_the_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 3 * 2**30)
    training = Training(monkeypatch, device="cuda")
    training.epoch([(1, 1)])
    assert training.logged[0][1]["speed/gpu_memory_gib"] == 3


@pytest.mark.parametrize("change", [{"is_global_zero": False}, {"loggers": []}])
def test_other_processes_and_runs_without_loggers_log_nothing(monkeypatch, change):
    training = Training(monkeypatch)
    vars(training.trainer).update(change)
    training.epoch([(1, 1), (1, 1)])
    training.callback.on_train_epoch_end(training.trainer, training.module)
    assert training.logged == []


def test_rates_are_logged_for_several_groups():
    one, other = (torch.nn.Parameter(torch.zeros(1)) for _ in range(2))
    several = torch.optim.Adam([{"params": [one], "lr": 0.5}, {"params": [other], "lr": 0.25, "name": "head"}])
    assert rates(SimpleNamespace(optimizers=[several])) == {"learning_rate/00": 0.5, "learning_rate/head": 0.25}
    assert rates(SimpleNamespace(optimizers=[torch.optim.Adam([one])])) == {}


def test_shares_of_terms_that_may_be_negative():
    logged = {
        "train/likelihood_epoch": -3.0, "train/regression_epoch": 1.0, "train/moment_epoch": 0.0, "train/total_epoch": -2.0,
        "train/likelihood_step": 9.0, "train/share_likelihood": 0.9, "val/AP": 1.0,
    }  # fmt: skip
    assert shares(logged) == {"share/likelihood": -0.75, "share/regression": 0.25}
    assert shares({"train/regression_epoch": 1.0, "train/total_epoch": 1.0}) == {}
    assert shares({}) == {}
