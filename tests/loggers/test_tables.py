from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
from lightning.pytorch.loggers import TensorBoardLogger, WandbLogger

from distilpose.loggers.tables import log_figures, log_histogram, log_table


def test_values_that_are_not_finite_are_left_out(tmp_path):
    calls = []
    trainer = SimpleNamespace(
        global_step=3, loggers=[SimpleNamespace(log_metrics=lambda *a, **k: calls.append((a, k)))]
    )
    log_figures(trainer, {"a": 1.0, "b": math.nan})
    log_figures(trainer, {"b": math.inf})
    assert calls == [(({"a": 1.0},), {"step": 3})]
    histograms = []
    logger = WandbLogger.__new__(WandbLogger)
    logger.log_metrics = lambda metrics, step: histograms.append(metrics["h"])
    trainer.loggers = [logger]
    log_histogram(trainer, "h", np.array([math.nan]))
    log_histogram(trainer, "h", np.array([1.0, math.nan, 3.0, math.inf]))
    (histogram,) = histograms
    assert sum(histogram.histogram) == 2


def test_a_table_in_tensorboard_is_text(tmp_path):
    texts = {}
    logger = TensorBoardLogger.__new__(TensorBoardLogger)
    logger._experiment = SimpleNamespace(add_text=lambda key, text, step: texts.update({(key, step): text}))
    trainer = SimpleNamespace(global_step=3, loggers=[logger])
    log_table(trainer, "t", ["a", "b"], [[1, 0.12345], [2, None]], [np.zeros((2, 2, 3), np.uint8)] * 2)
    assert texts == {("t", 3): "| a | b |\n| --- | --- |\n| 1 | 0.123 |\n| 2 |  |"}
