"""Jobs of a multirun that run on several devices: each in processes of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.types import RunMode
from lightning.fabric.plugins.environments import SLURMEnvironment, TorchElasticEnvironment
from omegaconf import DictConfig

from distilpose.callbacks.wandb_run import SWEEP, sweep_name
from distilpose.errors import DistilPoseError
from distilpose.runs import count_devices


def wants_processes(cfg: DictConfig) -> bool:
    """Whether this is a job of a multirun for which Lightning would start the program anew, and with it the whole sweep."""
    if not HydraConfig.initialized() or HydraConfig.get().mode != RunMode.MULTIRUN:
        return False
    started = SLURMEnvironment.detect() or TorchElasticEnvironment.detect()  # srun's or torchrun's processes are there
    forked = str(cfg.trainer.strategy).endswith(("fork", "spawn", "notebook"))
    return not started and not forked and count_devices(cfg.trainer) * cfg.trainer.num_nodes > 1


def run_apart(cfg: DictConfig) -> float | None:
    """The job as a command of its own in its own folder; returns the best value of the monitored metric.

    Raises:
        DistilPoseError: it failed; its own words have been told.
    """
    folder = Path(cfg.folder).resolve()
    place = QuotedString(str(folder), Quote.single).with_quotes()
    command = [sys.executable, "-m", "distilpose.train", *HydraConfig.get().overrides.task, f"hydra.run.dir={place}"]
    status = subprocess.run(command, env={**os.environ, SWEEP: sweep_name() or ""}).returncode
    if status:
        raise DistilPoseError(f"The run in {folder} ended with status {status}: see what it said above.")
    metrics = json.loads((folder / "metrics.json").read_text())
    return (metrics["best"] or {}).get(metrics["monitor"])
