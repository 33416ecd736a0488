from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
import torch

from distilpose.callbacks import BestCheckpoint
from distilpose.callbacks.metrics_table import read_table
from distilpose.runs.preflight import best_score

TINY = [
    "data=custom", "data.batch_size=4", "data.num_workers=0", "model=student_xs", "model.depth=1", "model.width=32",
    "model.heads=2", "model.input_size=[64,48]", "scheduler.warmup_steps=0", "loss=regression", "augmentation=none",
    "trainer.accelerator=cpu", "trainer.num_sanity_val_steps=0", "trainer.check_val_every_n_epoch=1", "logger=none",
    "~callbacks.pictures", "~callbacks.health", "~callbacks.details", "~callbacks.progress",
]  # fmt: skip


def test_a_validation_without_a_value_is_never_the_best(tmp_path, caplog):
    strategy = SimpleNamespace(reduce_boolean_decision=lambda decision: decision)
    trainer = SimpleNamespace(current_epoch=0, strategy=strategy)
    for monitor, absent in (("val/PCK", float("nan")), ("val/APM", -1.0), ("val/PCK", float("inf"))):
        callback = BestCheckpoint(tmp_path, monitor=monitor, mode="max")
        for _ in range(2):
            assert not callback.check_monitor_top_k(trainer, torch.tensor(absent))
        assert callback.check_monitor_top_k(trainer, torch.tensor(0.0))
    assert caplog.text.count("val/APM has no value in the validation of epoch 0") == 1


@pytest.mark.parametrize(
    ("monitor", "score"), [("val/PCK", float("-inf")), ("val/APM", -1.0), ("val/PCK", float("nan"))]
)
def test_a_score_without_a_value_is_none(monitor, score):
    callback = SimpleNamespace(monitor=monitor, best_model_score=torch.tensor(score))
    assert best_score(SimpleNamespace(checkpoint_callback=callback)) is None


def unlabel_hips(root):
    file = root / "annotations" / "val.json"
    content = json.loads(file.read_text())
    for person in content["annotations"]:
        person["keypoints"][33:39] = [0] * 6
    file.write_text(json.dumps(content))


def test_hips_never_labelled(run_train, tiny_coco, tmp_path):
    root = tiny_coco(train=8, val=6)
    unlabel_hips(root)
    settings = [*TINY, f"data.root={root}", "trainer.max_epochs=2", "hydra.run.dir=run"]
    status, message = run_train(*settings)
    assert status == 1
    assert "val/PCK has no value" in message
    assert "val/PCK_box (PCK by the size of the box)" in message
    assert not list(tmp_path.glob("run/checkpoints/*"))
    status, message = run_train(*settings, "data.monitor=val/PCK_box")
    assert status == 0, message
    rows = read_table(tmp_path / "run" / "metrics.csv")
    best = max(rows, key=lambda row: row["val/PCK_box"])
    content = torch.load(tmp_path / "run" / "checkpoints" / "best.ckpt", weights_only=True)
    assert content["epoch"] == best["epoch"]


def test_a_limited_validation_says_of_how_many(run_train, tiny_coco, tmp_path):
    settings = [*TINY, f"data.root={tiny_coco(train=8, val=8)}", "trainer.max_epochs=1", "hydra.run.dir=run"]
    status, message = run_train(*settings, "trainer.limit_val_batches=1", "data.val_batch_size=4")
    assert status == 0, message
    (row,) = read_table(tmp_path / "run" / "metrics.csv")
    assert row["val/persons"] == 4
