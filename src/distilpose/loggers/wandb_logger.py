"""Weights & Biases without an account or a network: offline mode is chosen before a run if W&B cannot be reached.

W&B raises an error if no account is set up or its server does not answer. An offline run stays in the run's folder until
`wandb sync` sends it.
"""

from __future__ import annotations

import logging
import netrc
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlparse
from urllib.request import getproxies, proxy_bypass

import wandb
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from lightning import Trainer
from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.utilities import rank_zero_only

from distilpose.errors import DistilPoseError, first_line

log = logging.getLogger(__name__)

DATA_DIR = "WANDB_DATA_DIR"
USER_DATA_DIR = os.environ.get(DATA_DIR)  # the user's value, before a run of this process changes it
FINISH_TIMEOUT = 90  # seconds, less than a cluster leaves between its signal and the kill
LOST_CONNECTION = (wandb.errors.Error, OSError)  # OSError includes timeouts
SWEEP = "DISTILPOSE_SWEEP"  # name of the sweep, for a job that is a separate command


class ResilientWandbLogger(WandbLogger):
    """Lightning's WandbLogger, which continues offline or skips a call if the server fails, and closes forked runs.

    Args:
        **options: settings of Lightning's WandbLogger.
    """

    def __init__(self, **options: Any):
        self._options = options
        self._process: int | None = os.getpid()
        self._warned = False
        super().__init__(**options)

    @property
    def mode(self) -> str:
        """W&B's mode: online, offline or disabled."""
        return str(self._options.get("mode"))

    @property
    def experiment(self) -> Any:
        """W&B's run, started at the first call; offline if the server rejects it or does not answer.

        Raises:
            DistilPoseError: W&B rejects a setting.
        """
        try:
            return super().experiment
        except (TypeError, ValueError, wandb.errors.UsageError) as error:  # pydantic's error is a ValueError
            reason = " ".join(str(error).split())
            raise DistilPoseError(f"W&B rejects its settings ({reason}): correct logger.wandb.….") from error
        except wandb.errors.CommError as error:
            log.warning(f"W&B rejects the run ({first_line(error)}): it is offline, send it later by wandb sync.")
            self._options["mode"] = "offline"
            super().__init__(**self._options)  # Lightning reads the mode only in __init__
            return super().experiment

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Log figures, tables and plots at a step; tables and plots need the server, and are skipped without it."""
        try:
            super().log_metrics(metrics, step)
        except LOST_CONNECTION as error:
            if not self._warned:
                log.warning(
                    f"W&B failed to log {', '.join(metrics)} ({first_line(error)}): the training continues, and skips what "
                    "W&B cannot log."
                )
            self._warned = True

    def __getstate__(self) -> dict[str, Any]:
        """State for a spawned process, which attaches to its parent's run and must not close it."""
        return {**super().__getstate__(), "_process": None}

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Close the run in a forked process (ddp_fork), whose last rows would be lost; otherwise `finish_wandb` closes it."""
        super().finalize(status)
        if self._process not in (None, os.getpid()) and wandb.run is not None:
            _finish(int(status != "success"))


def make_wandb_logger(
    project: str,
    name: str | float,
    save_dir: str,
    mode: Literal["auto", "online", "offline", "disabled"] = "auto",
    **options: Any,
) -> WandbLogger:
    """A W&B logger that never hangs on a machine without network or account.

    The jobs of a multirun are one W&B group with the name of the sweep's folder. They have the job type "sweep" and this name
    as a tag.

    Args:
        project: W&B project.
        name: name of the run.
        save_dir: folder of the run; an offline run stays in its `wandb` folder until `wandb sync`.
        mode: online, offline, disabled, or auto: online if an API key is set up and the server answers. If the server does
            not answer, online becomes offline.
        **options: other settings of Lightning's WandbLogger.
    """
    chosen = os.environ.get("WANDB_MODE", mode) if mode == "auto" else mode
    server = server_url()
    if chosen == "auto":
        chosen = "online" if _has_account(server) and accepts_connections(server) else "offline"
    elif chosen == "online" and not accepts_connections(server):
        rank_zero_only(log.warning)(
            f"W&B does not answer at {server}: the run is offline, send it later by wandb sync."
        )
        chosen = "offline"
    Path(save_dir).mkdir(parents=True, exist_ok=True)
    if USER_DATA_DIR is None:  # for tables that are not sent yet; W&B's default, the home folder, may not be writable
        os.environ[DATA_DIR] = str(Path(save_dir) / "wandb")
    sweep = sweep_name()
    if sweep is not None:
        options = {"group": sweep, "job_type": "sweep", "tags": [sweep[:64]], **options}  # W&B's longest tag
    # jobs of a multirun share a process, and each is a separate run
    settings: dict[str, Any] = {"silent": True, "reinit": "finish_previous"}
    if "finish_timeout" in wandb.Settings.model_fields:  # not in W&B's older versions
        settings |= {"finish_timeout": FINISH_TIMEOUT, "finish_timeout_raises": True}
    return ResilientWandbLogger(
        project=project, name=str(name), save_dir=save_dir, mode=chosen, settings=wandb.Settings(**settings), **options
    )


def server_url() -> str:
    """Address of W&B's server: WANDB_BASE_URL, the one that `wandb login --host` saved, or the public one."""
    # wandb.setup() also returns it, but starts W&B's service in every process
    settings = wandb.Settings()
    folder = Path(os.environ.get("WANDB_CONFIG_DIR") or "~/.config/wandb").expanduser()
    settings.settings_system = str(folder / "settings")
    settings.update_from_system_settings()
    settings.update_from_env_vars(dict(os.environ))
    return str(settings.base_url)


def sweep_name() -> str | None:
    """Name of the sweep's folder, if this is a job of a multirun."""
    if HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN:
        return Path(HydraConfig.get().sweep.dir).resolve().name
    return os.environ.get(SWEEP) or None


@contextmanager
def finish_wandb(trainer: Trainer) -> Iterator[None]:
    """Close the trainer's W&B run at the end of the block, so that no later job joins it; exit code 1 after an error."""
    code = 1
    try:
        yield
        code = 0
    finally:
        if any(isinstance(logger, WandbLogger) for logger in trainer.loggers) and wandb.run is not None:
            _finish(code)


def _finish(code: int) -> None:
    run: Any = wandb.run
    try:
        wandb.finish(exit_code=code)
    except LOST_CONNECTION as error:
        folder = Path(run.dir).parent
        log.warning(f"W&B did not receive the complete run ({first_line(error)}): send it by wandb sync {folder}.")


def _has_account(url: str) -> bool:
    """Whether an API key for the server is in the environment or in the netrc file."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    try:
        return netrc.netrc().authenticators(urlparse(url).hostname or "") is not None
    except (OSError, netrc.NetrcParseError):
        return False


def accepts_connections(url: str, timeout: float = 2.0) -> bool:
    """Whether the server, or the proxy in front of it, accepts a connection within `timeout` seconds."""
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
