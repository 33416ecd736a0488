"""Provenance of a run: versions, commit, devices and digests, in its folder and in every logger."""

from __future__ import annotations

import json
import logging
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from lightning import Callback, LightningModule, Trainer
from omegaconf import OmegaConf

from distilpose.files import quarantine, write_json
from distilpose.loggers.wandb_logger import sweep_name
from distilpose.modules import DistillationModule
from distilpose.runs.config import flatten
from distilpose.runs.folders import CONFIG
from distilpose.runs.provenance import digests, environment, source_files

log = logging.getLogger(__name__)


class Provenance(Callback):
    """Log the resolved configuration and the provenance, and write the latter to environment.json.

    The file holds the provenance of the first start as "started", and a list of those of later starts as "resumed".

    Args:
        folder: folder of the run, with its config.yaml.
    """

    def __init__(self, folder: str | Path):
        self.config, self.file = Path(folder) / CONFIG, Path(folder) / "environment.json"

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write and log, in the first process."""
        if not trainer.is_global_zero:
            return
        config: Any = OmegaConf.to_container(OmegaConf.load(self.config)) if self.config.is_file() else {}
        now = {**environment(), "processes": trainer.world_size, "sweep": sweep_name()}
        now["digests"] = self._digests(trainer, pl_module, config)
        teacher = getattr(pl_module, "teacher", None)
        if teacher is not None and teacher.about is not None:
            now["teacher"] = teacher.about
        self._write({"time": datetime.now(timezone.utc).isoformat(timespec="seconds"), **now}, trainer.ckpt_path)
        for logger in trainer.loggers:
            logger.log_hyperparams({**config, "environment": now})

    @staticmethod
    def _digests(trainer: Trainer, pl_module: LightningModule, config: dict[str, Any]) -> dict[str, dict[str, str]]:
        """Digests of the annotations, of the teacher's files and of the initial weights."""
        data = trainer.datamodule  # type: ignore[attr-defined]
        train = data.train_dataset()
        files = {
            f"train_annotations{f'_{number}' if number else ''}": file
            for number, file in enumerate(
                dict.fromkeys(one.annotations_file for one in getattr(train, "sets", [train]))
            )
        }
        files["val_annotations"] = data.val_dataset().annotations_file
        has_teacher = isinstance(pl_module, DistillationModule) and pl_module.teacher is not None
        used = config if has_teacher else {**config, "teacher": None}
        return digests({**files, **source_files(used, resumes=trainer.ckpt_path is not None)})

    def _write(self, start: dict[str, Any], resumed: Any) -> None:
        """Add this start to the file."""
        content: dict[str, Any] = {"started": start, "resumed": []}
        if resumed is not None and self.file.is_file():
            try:
                old = json.loads(self.file.read_text())
                content = {"started": old["started"], "resumed": [*old["resumed"], start]}
                _compare_digests(old["started"], start)
                _compare_teacher(old["started"], start)
            except (ValueError, KeyError, TypeError) as error:  # the training does not need it
                quarantine(self.file, error)
                content = {"started": None, "resumed": [start]}
        write_json(content, self.file)


def _compare_digests(started: Any, now: dict[str, Any]) -> None:
    """Warn about each file that has another content than at the first start of the run: its path does not show that."""
    before = started["digests"] if started else {}
    for role, file in now["digests"].items():
        if role in before and before[role]["sha256"] != file["sha256"]:
            log.warning(
                f"{role} ({file['file']}) has changed since the run started: SHA-256 {before[role]['sha256'][:12]} then, "
                f"{file['sha256'][:12]} now; the run continues with its present content."
            )


def _compare_teacher(started: Any, now: dict[str, Any]) -> None:
    """Warn if the teacher's network differs from that of the first start, such as a branch on the hub that has moved on."""
    before, present = (flatten(start.get("teacher") or {}) for start in (started or {}, now))
    if not before or not present:
        return
    changes = [
        f"{key} {before.get(key)} then, {present.get(key)} now"
        for key in {**before, **present}
        if before.get(key) != present.get(key)
    ]
    if changes:
        log.warning(
            f"The teacher has changed since the run started ({'; '.join(changes)}): the run continues with the present one."
        )
