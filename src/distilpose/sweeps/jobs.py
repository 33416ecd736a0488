"""The job of a sweep as a process: started anew where it needs several processes, alone in its folder, ended with its sweep.

Hydra runs a job in the process of its launcher. Lightning starts further processes by repeating the command line, which
there is the whole sweep's, so such a job runs as a command of its own.
"""

from __future__ import annotations

import json
import math
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.types import RunMode
from lightning.fabric.plugins.environments import SLURMEnvironment, TorchElasticEnvironment
from lightning.pytorch.utilities import rank_zero_only
from omegaconf import DictConfig, OmegaConf

from distilpose.errors import DistilPoseError
from distilpose.loggers.wandb_logger import SWEEP, sweep_name
from distilpose.runs import locks
from distilpose.runs.folders import SUMMARY, best_value
from distilpose.runs.preflight import count_processes
from distilpose.runs.resume import AUTO

# beginnings of Hydra's overrides that a single run never takes, and of those that only a trial of a search needs
MULTIRUN_OVERRIDES, SWEEP_OVERRIDES = ("hydra.mode", "hydra.run.dir"), ("hydra.sweep", "hydra/sweeper")
PARENT = "DISTILPOSE_PARENT"


def wants_processes(cfg: DictConfig) -> bool:
    """Whether this is a job of a multirun whose further processes Lightning would start by repeating the sweep's command."""
    if not HydraConfig.initialized() or HydraConfig.get().mode != RunMode.MULTIRUN:
        return False
    forks = str(cfg.trainer.strategy).endswith(("fork", "spawn", "notebook"))
    return not _has_cluster_launcher() and not forks and count_processes(cfg.trainer) > 1


def _has_cluster_launcher() -> bool:
    """Whether srun or torchrun has started all processes of the training."""
    return SLURMEnvironment.detect() or TorchElasticEnvironment.detect()


def run_in_subprocess(cfg: DictConfig) -> float | None:
    """Run the job as a command of its own in its folder; return the best value of the monitored metric.

    Raises:
        DistilPoseError: the command failed; it has printed its own error message.
    """
    folder = Path(cfg.folder).resolve()
    hydra = HydraConfig.get()
    command = [sys.executable, *build_command_line(hydra, hydra.overrides.task, folder)[1:]]
    variables = os.environ | {PARENT: str(os.getpid()), SWEEP: sweep_name() or ""}
    if cfg.trainer.num_nodes == 1:  # jobs side by side would all use the same port
        variables.pop("MASTER_PORT", None)
    status = subprocess.run(command, env=variables).returncode
    if status > 128:  # a signal ended it, which was meant for the sweep
        raise SystemExit(status)
    if status:
        raise DistilPoseError(f"The run in {folder} ended with status {status}: see its error message above.")
    return best_value(json.loads((folder / SUMMARY).read_text()))


def build_command_line(hydra: Any, overrides: Sequence[str], folder: Path, without: tuple[str, ...] = ()) -> list[str]:
    """Build the command line of one run of a sweep.

    Args:
        hydra: the sweep's `hydra` configuration.
        overrides: overrides of the run.
        folder: folder the run writes to.
        without: beginnings of overrides of Hydra's settings to leave out.
    """
    plain = re.fullmatch(r"[\w./-]+", str(folder))
    run_dir = folder if plain else QuotedString(str(folder), Quote.single).with_quotes()
    config_dirs = [source.path for source in hydra.runtime.config_sources if source.provider == "command-line"]
    flags = [part for path in config_dirs for part in ("--config-dir", path)]
    own = [override for override in hydra.overrides.hydra if not override.startswith(MULTIRUN_OVERRIDES + without)]
    return ["python", "-m", "distilpose.train", *flags, *own, *overrides, f"hydra.run.dir={run_dir}"]


@contextmanager
def exclusive_run(cfg: DictConfig) -> Iterator[bool]:
    """Lock a run's folder; gives whether another process held the lock before.

    With `resume=auto` the end of that process is awaited, and its run resumed: a sweep that was killed may have left it
    behind, as may one whose jobs run on a cluster. Processes of torchrun and srun do not wait, since each chooses a
    checkpoint for itself and would choose different ones after a wait.
    """
    if getattr(rank_zero_only, "rank", 0):  # rank zero holds the lock for all processes of a run
        yield False
        return
    waits = cfg.resume == AUTO and not _has_cluster_launcher()
    # without waiting, the workers of a process that was just killed still get some seconds
    with locks.held(Path(cfg.folder) / "run.lock", math.inf if waits else 10.0) as waited:
        yield waited


def check_folder(cfg: DictConfig) -> None:
    """Check that the folder of the run is one for all its processes, and that a sweep is started with -m.

    Raises:
        DistilPoseError: the folder is named after each process's clock, or -m is missing.
    """
    if not HydraConfig.initialized() or HydraConfig.get().mode == RunMode.MULTIRUN:
        return
    _check_multirun(cfg)
    if not _has_cluster_launcher():
        return
    run = OmegaConf.to_container(HydraConfig.instance().cfg.hydra.run, resolve=False)  # type: ignore[union-attr]
    if "${now:" in run["dir"] and cfg.resume is None:  # type: ignore[index,call-overload]
        raise DistilPoseError(
            "Each process of torchrun or srun would name its folder after its own clock: set hydra.run.dir=FOLDER for all."
        )


def _check_multirun(cfg: DictConfig) -> None:
    """A sweep without -m would train a single run with the settings that its jobs share, which only a check wants."""
    hydra = HydraConfig.get()
    name = hydra.runtime.choices.get("sweep")
    # a job, or the best trained again
    has_folder = any(override.startswith("hydra.run.dir=") for override in hydra.overrides.hydra)
    if name is not None and not has_folder and not cfg.check and not cfg.lr_find:
        raise DistilPoseError(
            f"sweep={name} needs -m, as in python -m distilpose.train -m sweep={name} …; leave sweep={name} out for a "
            "single run."
        )


def exit_with_parent() -> None:
    """End this process by SIGTERM when the process that launched it is gone, so that no job outlives its sweep unnoticed.

    Does nothing unless the launching process has set its number in the environment: jobs of a cluster outlive it.
    """
    parent = int(os.environ.pop(PARENT, 0))  # not for this process's own children
    if parent == os.getpid():
        os.environ[PARENT] = str(parent)
    elif parent:
        threading.Thread(target=_watch, args=(parent,), daemon=True).start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    while True:  # repeated, since a process of joblib's may have started its next job
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(3)
