"""Weights & Biases: online where an account is at hand, offline everywhere else, and one run a job."""

from __future__ import annotations

import netrc
import os
import socket
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlparse
from urllib.request import getproxies, proxy_bypass

import wandb
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from lightning import Trainer
from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.utilities import rank_zero_only
from tqdm import tqdm

from distilpose.errors import DistilPoseError, first_line

DATA = "WANDB_DATA_DIR"
DATA_IS_GIVEN = DATA in os.environ
MODES = ("auto", "online", "offline", "disabled")
FINISH = 90  # seconds that the end of a run may wait for the server: less than a cluster leaves after its signal
LOST = (wandb.errors.Error, OSError)  # of a server that has gone; a timeout is the latter
SWEEP = "DISTILPOSE_SWEEP"  # tells jobs of a multirun that are commands of their own which sweep they belong to


class LastingWandbLogger(WandbLogger):
    """Lightning's WandbLogger, which goes on where the server is gone or refuses, and closes its run in any process.

    A forked process (ddp_fork) ends without a word to W&B, and its last rows would be lost. Elsewhere `finish_wandb` closes
    the run.
    """

    def __init__(self, **options: Any):
        super().__init__(**options)
        self._made_in = os.getpid()
        self._misses = False

    @property
    def experiment(self) -> Any:
        """W&B's run, begun at the first call; offline, with a word, where the server does not take it."""
        try:
            return super().experiment
        except wandb.errors.CommError as error:  # a key that is refused, a server that breaks down or never answers
            print(f"W&B does not take the run ({first_line(error)}): it is offline, send it later by wandb sync.")
            self._wandb_init["mode"] = "offline"
            return super().experiment
        except wandb.errors.UsageError as error:
            raise DistilPoseError(
                f"W&B refuses the run ({first_line(error)}): correct logger.wandb.…, or give logger.wandb.mode=offline."
            ) from error

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Figures, tables and plots at a step; tables and plots ask the server, and are left out where it is gone."""
        try:
            super().log_metrics(metrics, step)
        except LOST as error:
            if not self._misses:
                tqdm.write(
                    f"W&B does not take {', '.join(metrics)} ({first_line(error)}): the training goes on without, and with "
                    "what else it does not take."
                )
            self._misses = True

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Close the run at the end of a fit, if this process is not the logger's own and began it."""
        super().finalize(status)
        attached = getattr(self, "_attach_id", None) is not None  # to its parent's run, as spawned processes are
        if os.getpid() != self._made_in and not attached and wandb.run is not None:
            _finish(int(status != "success"))


def make_wandb_logger(project: str, name: str, save_dir: str, mode: str = "auto", **options: Any) -> WandbLogger:
    """A W&B logger that never hangs on a machine without network or account.

    The jobs of a multirun are one W&B group under the sweep folder's name, with job type "sweep" and that name as a tag;
    a run by itself has none of these.

    Args:
        project: W&B project.
        name: of the run.
        save_dir: the run's folder; an offline run lies in its `wandb` folder until `wandb sync`.
        mode: online, offline, disabled, or auto: online where an API key is set up and the server answers. Asked to be
            online where it does not answer, the run is offline, with a word.
        **options: of lightning's WandbLogger.
    """
    mode = os.environ.get("WANDB_MODE", mode) if mode == "auto" else mode
    if mode not in MODES:
        raise DistilPoseError(f"logger.wandb.mode={mode} must be one of {', '.join(MODES)}.")
    server = server_url()
    if mode == "auto":
        mode = "online" if _has_account(server) and answers(server) else "offline"
    elif mode == "online" and not answers(server):
        rank_zero_only(print)(f"W&B does not answer at {server}: the run is offline, send it later by wandb sync.")
        mode = "offline"
    Path(save_dir).mkdir(parents=True, exist_ok=True)
    if (
        not DATA_IS_GIVEN
    ):  # where tables lie until they are sent: beside the run, not in a home that may not be writable
        os.environ[DATA] = str(Path(save_dir) / "wandb")
    sweep = sweep_name()
    if sweep is not None:
        options = {"group": sweep, "job_type": "sweep", "tags": [sweep[:64]], **options}  # as long as W&B takes
    # reinit: a multirun's jobs share a process, and each is a run of its own
    wanted: dict[str, Any] = {"silent": True, "reinit": "finish_previous"}
    if "finish_timeout" in wandb.Settings.model_fields:  # for a server that has gone since; the run lies in save_dir
        wanted |= {"finish_timeout": FINISH, "finish_timeout_raises": True}
    settings = wandb.Settings(**wanted)
    return LastingWandbLogger(project=project, name=name, save_dir=save_dir, mode=mode, settings=settings, **options)


def server_url() -> str:
    """Address of W&B's server: of WANDB_BASE_URL, of the settings that `wandb login --host` writes, or the public one."""
    # as wandb.init does, which would start W&B's own process in every process of the run
    settings = wandb.Settings()
    folder = Path(os.environ.get("WANDB_CONFIG_DIR") or "~/.config/wandb").expanduser()
    settings.settings_system = str(folder / "settings")
    try:
        settings.update_from_system_settings()
        settings.update_from_env_vars(dict(os.environ))
    except ValueError as error:
        raise DistilPoseError(
            f"W&B does not take its settings in the environment ({' '.join(str(error).split())}): correct the variables "
            "that begin with WANDB_, or leave W&B out by logger=none."
        ) from error
    return str(settings.base_url)


def unreachable() -> str | None:
    """Why W&B's server cannot be used from here, in a few words; None where it can."""
    server = server_url()
    if not _has_account(server):
        return f"no account is set up for {server}"
    return None if answers(server) else f"{server} does not answer"


def sweep_name() -> str | None:
    """The name of the folder of the multirun that this is a job of; None of a run by itself."""
    if HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN:
        return Path(HydraConfig.get().sweep.dir).resolve().name
    return os.environ.get(SWEEP) or None


@contextmanager
def finish_wandb(trainer: Trainer) -> Iterator[None]:
    """Close the trainer's W&B run with exit code 0 if the block ends well, else 1, so that no later job joins it."""
    code = 1
    try:
        yield
        code = 0
    finally:
        if any(isinstance(logger, WandbLogger) for logger in trainer.loggers) and wandb.run is not None:
            _finish(code)


def _finish(code: int) -> None:
    """Close W&B's run, in a limited time."""
    run: Any = wandb.run
    try:
        wandb.finish(exit_code=code)
    except LOST as error:
        folder = Path(run.dir).parent
        print(
            f"W&B has not taken the whole run ({first_line(error)}): send it by wandb sync {folder}.", file=sys.stderr
        )


def _has_account(url: str) -> bool:
    """Whether an API key for the server is in the environment or in the netrc file."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    try:
        return netrc.netrc().authenticators(urlparse(url).hostname or "") is not None
    except (OSError, netrc.NetrcParseError):
        return False


def answers(url: str, timeout: float = 2.0) -> bool:
    """Whether the server, or the proxy on the way to it, accepts a connection within `timeout` seconds."""
    address = urlparse(url)
    proxy = None if proxy_bypass(address.hostname or "") else getproxies().get(address.scheme)
    if proxy is not None:
        address = urlparse(proxy if "//" in proxy else f"//{proxy}", scheme="http")
    try:
        port = address.port or (443 if address.scheme == "https" else 80)
        with socket.create_connection((address.hostname or "", port), timeout):
            return True
    except OSError:
        return False
