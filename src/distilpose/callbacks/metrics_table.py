"""Metrics of a run as files: one row for each epoch in metrics.csv, the last and the best row in metrics.json.

Lightning's CSVLogger is not used: it starts a new file for a resumed run, and writes training and validation into different
rows.
"""

from __future__ import annotations

import csv
import io
import time
from pathlib import Path
from typing import Any

from lightning import Callback, LightningModule, Trainer

from distilpose.evaluation import has_value
from distilpose.files import quarantine, write_json, write_text
from distilpose.modules.pose_module import PoseModule
from distilpose.runs.folders import SUMMARY, TABLE

# in epochs without a validation, Lightning keeps the last values of these metrics
VALIDATION = ("val/", "health/")
COUNTS = ("epoch", "step")


class MetricsTable(Callback):
    """Write all logged values as one row for each epoch, with any logger or none.

    A resumed run continues the table: it keeps the rows before its first epoch and replaces the others.

    Args:
        folder: folder of metrics.csv and metrics.json.
    """

    def __init__(self, folder: str | Path):
        self.table = Path(folder) / TABLE
        self.summary = Path(folder) / SUMMARY
        self._validated = False
        self._started = time.monotonic()

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check that an earlier table can be continued; quarantine a damaged one."""
        if not trainer.is_global_zero:
            return
        try:
            [(row["epoch"], row["step"]) for row in read_table(self.table)]
        except (ValueError, KeyError, TypeError, OverflowError, csv.Error) as error:
            quarantine(self.table, error)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the epoch's clock."""
        self._validated = False
        self._started = time.monotonic()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Remember that this epoch has been validated."""
        self._validated = not trainer.sanity_checking

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Add the epoch's row, and update the last and the best."""
        if isinstance(pl_module, PoseModule):
            pl_module.log_epoch_means()
        if not trainer.is_global_zero:
            return
        row: dict[str, Any] = {
            "epoch": trainer.current_epoch,
            "step": trainer.global_step,
            "seconds": round(time.monotonic() - self._started, 2),
        }
        for name, value in sorted(trainer.callback_metrics.items()):
            if name.endswith("_step") or (name.startswith(VALIDATION) and not self._validated):
                continue
            row[name.removesuffix("_epoch")] = float(value)
        earlier = read_table(self.table)
        if not self._validated:  # a run resumed after this epoch's validation has its values in the table already
            for old in earlier:
                same = old["epoch"] == row["epoch"] and old["step"] == row["step"]
                row.update({name: value for name, value in old.items() if same and name.startswith(VALIDATION)})
        rows = [*(old for old in earlier if old["epoch"] < row["epoch"]), row]
        _write_table(self.table, rows)
        checkpoint = trainer.checkpoint_callback
        monitor, mode = str(getattr(checkpoint, "monitor", "")), getattr(checkpoint, "mode", "max")
        valid = [r for r in rows if has_value(monitor, r.get(monitor))]
        best = (max if mode == "max" else min)(valid, key=lambda r: r[monitor]) if valid else None
        write_json({"monitor": monitor, "best": best, "last": row}, self.summary)


def read_table(path: str | Path) -> list[dict[str, float]]:
    """Read the rows of a metrics.csv without their empty cells; no rows if the file does not exist."""
    if not Path(path).is_file():
        return []
    with open(path, newline="") as file:
        return [
            {name: int(float(value)) if name in COUNTS else float(value) for name, value in row.items() if value}
            for row in csv.DictReader(file)
        ]


def _write_table(path: Path, rows: list[dict[str, Any]]) -> None:
    columns = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(text.getvalue(), path)
