"""One job of a sweep as a process: it locks its folder, and stops when the sweep stops.

Hydra runs a job in the process of its launcher. Lightning starts more processes by repeating the command line. In a sweep
that command line would start the complete sweep again. A job with several processes is therefore started as a separate
command.
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

# prefixes of Hydra's overrides that do not apply to a single run, and of those that only a trial of a search needs
MULTIRUN_OVERRIDES, SWEEP_OVERRIDES = ("hydra.mode", "hydra.run.dir"), ("hydra.sweep", "hydra/sweeper")
PARENT = "DISTILPOSE_PARENT"


def wants_processes(cfg: DictConfig) -> bool:
    """Whether this is a job of a multirun for which Lightning would start more processes by repeating the sweep's command."""
    if not HydraConfig.initialized() or HydraConfig.get().mode != RunMode.MULTIRUN:
        return False
    forks = str(cfg.trainer.strategy).endswith(("fork", "spawn", "notebook"))
    return not _has_cluster_launcher() and not forks and count_processes(cfg.trainer) > 1


def _has_cluster_launcher() -> bool:
    """Whether srun or torchrun has started all processes of the training."""
    return SLURMEnvironment.detect() or TorchElasticEnvironment.detect()


def run_in_subprocess(cfg: DictConfig) -> float | None:
    """Run the job as a separate command in its folder; return the best value of the monitored metric.

    Raises:
        DistilPoseError: the command failed; it has printed an error message.
    """
    folder = Path(cfg.folder).resolve()
    hydra = HydraConfig.get()
    command = [sys.executable, *build_command_line(hydra, hydra.overrides.task, folder)[1:]]
    variables = os.environ | {PARENT: str(os.getpid()), SWEEP: sweep_name() or ""}
    if cfg.trainer.num_nodes == 1:  # concurrent jobs would all use the same port
        variables.pop("MASTER_PORT", None)
    status = subprocess.run(command, env=variables).returncode
    if status > 128:  # ended by a signal, which was meant for the sweep
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
        without: prefixes of overrides of Hydra's settings to leave out.
    """
    is_plain = re.fullmatch(r"[\w./-]+", str(folder))
    run_dir = folder if is_plain else QuotedString(str(folder), Quote.single).with_quotes()
    config_dirs = [source.path for source in hydra.runtime.config_sources if source.provider == "command-line"]
    flags = [part for path in config_dirs for part in ("--config-dir", path)]
    settings = [override for override in hydra.overrides.hydra if not override.startswith(MULTIRUN_OVERRIDES + without)]
    return ["python", "-m", "distilpose.train", *flags, *settings, *overrides, f"hydra.run.dir={run_dir}"]


@contextmanager
def exclusive_run(cfg: DictConfig) -> Iterator[None]:
    """Lock a run's folder.

    With `resume=auto`, wait until that process ends, and resume its run: it may belong to a killed sweep, or run on a
    cluster. Processes of torchrun and srun do not wait: each chooses a checkpoint, and after a wait they could choose
    different ones.
    """
    if getattr(rank_zero_only, "rank", 0):  # rank zero holds the lock for all processes of a run
        yield
        return
    waits = cfg.resume == AUTO and not _has_cluster_launcher()
    # otherwise wait some seconds, until the workers of a killed process have ended
    with locks.held(Path(cfg.folder) / "run.lock", math.inf if waits else 10.0):
        yield


def check_folder(cfg: DictConfig) -> None:
    """Check that the run has a folder, the same in all its processes, and that a sweep or a launcher is used with -m.

    Raises:
        DistilPoseError: the folder has no name or one that depends on the clock of each process, or -m is missing.
    """
    if not HydraConfig.initialized() or HydraConfig.get().mode == RunMode.MULTIRUN:
        return
    _check_multirun(cfg)
    if not HydraConfig.get().run.dir:
        raise DistilPoseError("hydra.run.dir is empty: give the folder of the run, such as hydra.run.dir=runs/NAME.")
    if not _has_cluster_launcher():
        return
    run = OmegaConf.to_container(HydraConfig.instance().cfg.hydra.run, resolve=False)  # type: ignore[union-attr]
    if "${now:" in run["dir"] and cfg.resume is None:  # type: ignore[index,call-overload]
        raise DistilPoseError(
            "Each process of torchrun or srun would name its folder after its own clock: set hydra.run.dir=FOLDER for all."
        )


def _check_multirun(cfg: DictConfig) -> None:
    """Raise an error for a sweep or a launcher without -m: it would start a single run on this machine."""
    hydra = HydraConfig.get()
    chosen = [f"{group}={name}" for group in ("sweep", "launcher") if (name := hydra.runtime.choices.get(group))]
    # true for a job of the sweep, and for the command that retrains the best trial
    has_folder = any(override.startswith("hydra.run.dir=") for override in hydra.overrides.hydra)
    if chosen and not has_folder and not cfg.check and not cfg.lr_find:
        raise DistilPoseError(
            f"{chosen[0]} needs -m, as in python -m distilpose.train -m {chosen[0]} …; leave {chosen[0]} out for a single "
            "run."
        )


def exit_with_parent() -> None:
    """End this process with SIGTERM when its parent has ended, so that no job outlives its sweep unnoticed.

    Does nothing unless the parent has set its process ID in the environment: jobs on a cluster may outlive the sweep.
    """
    parent = int(os.environ.pop(PARENT, 0))  # child processes of this process must not inherit it
    if parent == os.getpid():
        os.environ[PARENT] = str(parent)
    elif parent:
        threading.Thread(target=_watch, args=(parent,), daemon=True).start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    while True:  # repeated because a process of joblib may have started its next job
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(3)
