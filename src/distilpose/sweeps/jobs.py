"""Jobs of a multirun: those that need processes of their own, one at a time in a folder, none without its sweep."""

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
from distilpose.runs.resume import AUTO
from distilpose.runs.validation import count_processes

# what of Hydra's own settings is never a run's, and what only a search's trial asks for
NOT_OF_A_RUN, OF_A_SWEEP = ("hydra.mode", "hydra.run.dir"), ("hydra.sweep", "hydra/sweeper")
PARENT = "DISTILPOSE_PARENT"


def wants_processes(cfg: DictConfig) -> bool:
    """Whether this is a job of a multirun for which Lightning would start the program anew, and with it the whole sweep."""
    if not HydraConfig.initialized() or HydraConfig.get().mode != RunMode.MULTIRUN:
        return False
    forked = str(cfg.trainer.strategy).endswith(("fork", "spawn", "notebook"))
    return not _started_together() and not forked and count_processes(cfg.trainer) > 1


def _started_together() -> bool:
    """Whether srun or torchrun has started all processes of the training."""
    return SLURMEnvironment.detect() or TorchElasticEnvironment.detect()


def run_in_subprocess(cfg: DictConfig) -> float | None:
    """The job as a command of its own in its own folder; returns the best value of the monitored metric.

    Raises:
        DistilPoseError: it failed; its own words have been told.
    """
    folder = Path(cfg.folder).resolve()
    hydra = HydraConfig.get()
    command = [sys.executable, *build_command_line(hydra, hydra.overrides.task, folder)[1:]]
    variables = os.environ | {PARENT: str(os.getpid()), SWEEP: sweep_name() or ""}
    if cfg.trainer.num_nodes == 1:  # a port that is set would be that of all jobs side by side
        variables.pop("MASTER_PORT", None)
    status = subprocess.run(command, env=variables).returncode
    if status > 128:  # left on a signal, which was the sweep's
        raise SystemExit(status)
    if status:
        raise DistilPoseError(f"The run in {folder} ended with status {status}: see what it said above.")
    return best_value(json.loads((folder / SUMMARY).read_text()))


def build_command_line(hydra: Any, overrides: Sequence[str], folder: Path, without: tuple[str, ...] = ()) -> list[str]:
    """The command line of one run of a sweep.

    Args:
        hydra: the sweep's `hydra` configuration.
        overrides: of the run.
        folder: where it writes.
        without: beginnings of settings of Hydra's that are left out.
    """
    plain = re.fullmatch(r"[\w./-]+", str(folder))
    place = folder if plain else QuotedString(str(folder), Quote.single).with_quotes()
    own = [source.path for source in hydra.runtime.config_sources if source.provider == "command-line"]
    given = [word for word in hydra.overrides.hydra if not word.startswith(NOT_OF_A_RUN + without)]
    flags = [part for path in own for part in ("--config-dir", path)]
    return ["python", "-m", "distilpose.train", *flags, *given, *overrides, f"hydra.run.dir={place}"]


@contextmanager
def exclusive_run(cfg: DictConfig) -> Iterator[bool]:
    """A run's folder to oneself; with `resume=auto` another process's end is waited for, and gone on from.

    A sweep that was killed may have left such a process behind, as may one whose jobs are a cluster's. Processes of torchrun
    and srun choose a checkpoint each for itself, and would choose unlike ones after a wait: there another is refused.
    """
    if getattr(rank_zero_only, "rank", 0):  # of a run's processes one holds it for all
        yield False
        return
    waits = cfg.resume == AUTO and not _started_together()  # else for the loading processes of one that was killed
    with locks.held(Path(cfg.folder) / "run.lock", math.inf if waits else 10.0) as waited:
        yield waited


def check_folder(cfg: DictConfig) -> None:
    """Refuse a sweep without -m, and under torchrun a folder named by the time: each process would name one of its own."""
    _refuse_single(cfg)
    if not (HydraConfig.initialized() and _started_together()) or HydraConfig.get().mode == RunMode.MULTIRUN:
        return
    run = OmegaConf.to_container(HydraConfig.instance().cfg.hydra.run, resolve=False)  # type: ignore[union-attr]
    if "${now:" in run["dir"] and cfg.resume is None:  # type: ignore[index,call-overload]
        raise DistilPoseError(
            "Each of these processes would choose a folder by its own clock: give one for all, by hydra.run.dir=FOLDER."
        )


def _refuse_single(cfg: DictConfig) -> None:
    """A sweep without -m would train one run with the settings that its jobs share; a check looks at just that."""
    if not HydraConfig.initialized() or HydraConfig.get().mode == RunMode.MULTIRUN or cfg.check or cfg.lr_find:
        return
    hydra = HydraConfig.get()
    name = hydra.runtime.choices.get("sweep")
    # a job, or the best trained again
    placed = any(word.startswith("hydra.run.dir=") for word in hydra.overrides.hydra)
    if name is not None and not placed:
        raise DistilPoseError(
            f"sweep={name} is of many runs and wants -m: python -m distilpose.train -m sweep={name} …, or leave it out for one "
            "run."
        )


def exit_with_parent() -> None:
    """End this process by SIGTERM when the one that launched it is gone, so that no job outlives its sweep unseen.

    Only where the launching process left its number; a cluster's jobs are meant to outlive it.
    """
    parent = int(os.environ.pop(PARENT, 0))  # not for this process's own children
    if parent == os.getpid():
        os.environ[PARENT] = str(parent)
    elif parent:
        threading.Thread(target=_watch, args=(parent,), daemon=True).start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    while True:  # again: a worker may have taken up its next job
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(3)
