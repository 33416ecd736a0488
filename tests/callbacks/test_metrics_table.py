from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
import torch

from distilpose.callbacks import MetricsTable
from distilpose.callbacks.metrics_table import read_table


class Epochs:
    """A stub trainer that runs epochs with fixed figures, and calls the table as Lightning does."""

    def __init__(self, folder, monitor="val/AP", mode="max", rank=0):
        self.table = MetricsTable(folder)
        self.trainer = SimpleNamespace(
            is_global_zero=rank == 0,
            sanity_checking=False,
            callback_metrics={},
            checkpoint_callback=SimpleNamespace(monitor=monitor, mode=mode),
        )

    def run(self, epoch, trained, validated=None):
        self.trainer.current_epoch, self.trainer.global_step = epoch, 10 * (epoch + 1)
        self.table.on_train_epoch_start(self.trainer, None)
        figures = self.trainer.callback_metrics  # Lightning keeps what was logged in earlier epochs
        figures.update({name: torch.tensor(value) for name, value in trained.items()})
        if validated is not None:
            figures.update({name: torch.tensor(value) for name, value in validated.items()})
            self.table.on_validation_end(self.trainer, None)
        self.table.on_train_epoch_end(self.trainer, None)


def test_one_row_per_epoch_with_blanks_without_a_validation(tmp_path):
    epochs = Epochs(tmp_path)
    epochs.run(0, {"train/total_epoch": 3.0, "train/total_step": 9.0})
    epochs.run(1, {"train/total_epoch": 2.0}, {"val/AP": 0.25, "health/sigma_median": 1.5})
    epochs.run(2, {"train/total_epoch": 1.0})
    lines = (tmp_path / "metrics.csv").read_text().splitlines()
    assert [line.split(",")[:2] for line in lines] == [["epoch", "step"], ["0", "10"], ["1", "20"], ["2", "30"]]
    rows = read_table(tmp_path / "metrics.csv")
    for row in rows:
        assert row.pop("seconds") >= 0
    assert rows == [
        {"epoch": 0, "step": 10, "train/total": 3},
        {"epoch": 1, "step": 20, "train/total": 2, "val/AP": 0.25, "health/sigma_median": 1.5},
        {"epoch": 2, "step": 30, "train/total": 1},
    ]


@pytest.mark.parametrize(("mode", "best"), [("max", 1), ("min", 0)])
def test_best_and_last(tmp_path, mode, best):
    epochs = Epochs(tmp_path, mode=mode)
    for epoch, value in enumerate((0.1, 0.3, 0.2, float("nan"))):
        epochs.run(epoch, {}, {"val/AP": value})
    epochs.run(4, {})
    summary = json.loads((tmp_path / "metrics.json").read_text())
    assert summary["monitor"] == "val/AP"
    assert summary["best"]["epoch"] == best
    assert summary["last"]["epoch"] == 4


def test_nothing_is_best_before_the_first_validation(tmp_path):
    Epochs(tmp_path).run(0, {"train/total": 1.0})
    assert json.loads((tmp_path / "metrics.json").read_text())["best"] is None


def test_a_resumed_run_continues_the_table(tmp_path):
    before = Epochs(tmp_path)
    for epoch in range(4):
        before.run(epoch, {"train/total": 10.0 + epoch}, {"val/AP": 0.9 if epoch == 0 else 0.1})
    after = Epochs(tmp_path)
    for epoch in (2, 3, 4):
        after.run(epoch, {"train/total": 20.0 + epoch, "train/new": 1.0}, {"val/AP": 0.2})
    rows = read_table(tmp_path / "metrics.csv")
    assert [(row["epoch"], row["train/total"]) for row in rows] == [(0, 10), (1, 11), (2, 22), (3, 23), (4, 24)]
    assert ["train/new" in row for row in rows] == [False, False, True, True, True]
    assert json.loads((tmp_path / "metrics.json").read_text())["best"]["epoch"] == 0


def test_a_sanity_check_does_not_count_as_a_validation(tmp_path):
    epochs = Epochs(tmp_path)
    epochs.trainer.sanity_checking = True
    epochs.run(0, {}, {"val/AP": 0.5})
    assert "val/AP" not in read_table(tmp_path / "metrics.csv")[0]


def test_other_processes_write_nothing(tmp_path):
    Epochs(tmp_path, rank=1).run(0, {"train/total": 1.0}, {"val/AP": 0.5})
    assert not list(tmp_path.iterdir())


def test_a_missing_table_has_no_rows(tmp_path):
    assert read_table(tmp_path / "absent.csv") == []


@pytest.mark.parametrize(
    "content", ["epoch,step\n0,ten\n", "epoch,step\n0,10,3\n", "step\n3\n", "epoch,step\n0\n", "\0\n1\n"]
)
def test_a_damaged_table_is_quarantined_at_the_start(tmp_path, content):
    (tmp_path / "metrics.csv").write_text(content)
    epochs = Epochs(tmp_path)
    epochs.table.on_fit_start(epochs.trainer, None)
    assert (tmp_path / "metrics.damaged.csv").read_text() == content
    epochs.run(3, {"train/total_epoch": 3.0})
    assert [row["epoch"] for row in read_table(tmp_path / "metrics.csv")] == [3]


def test_an_intact_table_is_kept(tmp_path):
    epochs = Epochs(tmp_path)
    epochs.table.on_fit_start(epochs.trainer, None)
    epochs.run(0, {"train/total_epoch": 3.0})
    epochs.table.on_fit_start(epochs.trainer, None)
    assert len(read_table(tmp_path / "metrics.csv")) == 1


def test_a_metric_without_a_value_is_never_the_best(tmp_path):
    epochs = Epochs(tmp_path, monitor="val/APM")
    for epoch, value in enumerate((-1.0, float("nan"))):
        epochs.run(epoch, {}, {"val/APM": value})
    assert json.loads((tmp_path / "metrics.json").read_text())["best"] is None
    epochs.run(2, {}, {"val/APM": 0.0})
    assert json.loads((tmp_path / "metrics.json").read_text())["best"]["epoch"] == 2
