"""lr_find=true raises the learning rate step by step, and suggests one."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from lightning import Trainer

from distilpose import train
from distilpose.cli.paths import CONFIG_DIR
from distilpose.runs import lr_finder
from distilpose.runs.lr_finder import Curve, rising, with_rising_rate

TINY = [
    "data=custom", "data.batch_size=4", "data.num_workers=0", "augmentation=none", "model=student_xs", "model.depth=1",
    "model.width=32", "model.heads=2", "loss=regression", "trainer.accelerator=cpu", "lr_find=true",
]  # fmt: skip


def test_a_tenth_of_the_rate_with_the_lowest_loss_is_suggested():
    curve = Curve()
    curve.rates = np.logspace(-6, 0, 100).tolist()
    curve.losses = (1 + (np.log10(curve.rates) + 2) ** 2).tolist()  # lowest at 1e-2
    assert curve.suggestion() == pytest.approx(1e-3, rel=0.1)
    curve.losses[-1] = np.nan
    assert curve.suggestion() == pytest.approx(1e-3, rel=0.1)
    curve.losses = np.linspace(1, 2, 100).tolist()
    assert curve.suggestion() is None


def test_blocks_keep_their_share_of_the_rate():
    layers = [torch.nn.Parameter(torch.zeros(1)) for _ in range(2)]
    optimizer = torch.optim.SGD([{"params": layers[0], "lr": 0.25}, {"params": layers[1], "lr": 0.5}])
    schedule = rising(optimizer, 1, 1, steps=4)
    seen = []
    for _ in range(4):
        seen.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        schedule.step()
    assert seen == [[pytest.approx(rate / 2), pytest.approx(rate)] for rate in (1e-6, 1e-4, 1e-2, 1)]


@pytest.mark.slow
def test_a_curve_is_drawn_and_nothing_else_is_written(run_train, tiny_coco, tmp_path, monkeypatch, capsys):
    root = tiny_coco(train=40)
    seen = []
    monkeypatch.setattr(lr_finder, "draw", lambda curve, rate: seen.append(curve) or np.zeros((9, 9, 3), np.uint8))
    settings = [*TINY, f"data.root={root}", "hydra.run.dir=run", "trainer.accumulate_grad_batches=2"]
    before = set(tmp_path.rglob("*"))
    status, printed = run_train(*settings)
    assert status == 0, printed
    assert set(tmp_path.rglob("*")) - before == {tmp_path / "run", tmp_path / "run" / "learning_rate.png"}
    (curve,) = seen
    assert curve.rates == pytest.approx(np.logspace(-6, 0, 100)[: len(curve.rates)], rel=1e-6)
    # it stops when the loss diverges; at the lowest rates nothing is learnt
    assert len(curve.rates) == 100 or curve.diverged
    assert curve.losses[5] == pytest.approx(curve.losses[0], rel=0.3)
    assert min(curve.losses) < 0.8 * curve.losses[0]


def test_the_rate_is_suggested_before_scaling(tiny_coco, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(lr_finder, "STEPS", 40)
    with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        overrides = [*TINY, f"data.root={tiny_coco(train=40)}", f"folder={tmp_path / 'run'}"]
        plain, scaled = (compose("train", [*overrides, f"scale_lr={flag}"]) for flag in ("false", "true"))
    rates = []
    for number, cfg in enumerate((plain, scaled)):
        cfg.folder = str(tmp_path / str(number))
        cfg = with_rising_rate(cfg)
        datamodule, module = train.build(cfg)
        rates.append(lr_finder.find_rate(cfg, module, datamodule))
        assert cv2.imread(str(tmp_path / str(number) / "learning_rate.png")).shape == (400, 700, 3)
        assert f"optimizer.lr={rates[-1]:.2g}" in capsys.readouterr().out
    assert 1e-5 < rates[0] < 0.5
    assert rates[1] == pytest.approx(rates[0] * 256 / 4, rel=1e-3)


def test_it_uses_the_settings_of_the_run_to_resume(run_train, tiny_run, monkeypatch):
    monkeypatch.setattr(lr_finder, "STEPS", 2)
    built = []
    monkeypatch.setattr(lr_finder, "Trainer", lambda **options: built.append(options) or Trainer(**options))
    monkeypatch.setattr(lr_finder.Curve, "suggestion", lambda curve: 1e-3)
    clipping = ["trainer.gradient_clip_val=0.5", "+trainer.gradient_clip_algorithm=value"]
    status, printed = run_train("lr_find=true", "resume=run", *clipping)
    assert status == 0, printed
    assert (built[0]["gradient_clip_val"], built[0]["gradient_clip_algorithm"]) == (0.5, "value")
    assert (tiny_run / "learning_rate.png").is_file()


def test_a_loss_that_is_never_finite_suggests_nothing():
    curve = Curve()
    curve.rates, curve.losses = [1e-6], [float("nan")]
    assert curve.suggestion() is None
