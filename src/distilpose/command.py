"""How every command starts: Hydra composes the configuration, and a mistake ends in one sentence."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable
from typing import Any

import hydra
from hydra.errors import CompactHydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from distilpose.errors import DistilPoseError
from distilpose.paths import CONFIG_DIR


def command(config_name: str) -> Callable[[Callable[[DictConfig], Any]], Callable[[], Any]]:
    """Make a task function into a command configured by `conf/<config_name>.yaml`.

    A mistake of the user's (an unknown override, a missing file, a folder that cannot be written) is printed as one
    sentence with exit status 1; anything else is a defect of ours and keeps its stack trace. With HYDRA_FULL_ERROR=1
    every error keeps it.
    """

    def decorate(task: Callable[[DictConfig], Any]) -> Callable[[], Any]:
        run = hydra.main(config_path=str(CONFIG_DIR), config_name=config_name, version_base="1.3")(task)

        @functools.wraps(task)
        def main() -> Any:
            wants_trace = os.environ.get("HYDRA_FULL_ERROR", "0") not in ("", "0")
            os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then lets exceptions through to here
            try:
                return run()
            except (CompactHydraException, OmegaConfBaseException, OSError) as error:
                if wants_trace:
                    raise
                sys.exit(f"error: {_sentence(error)}")
            finally:
                os.environ["HYDRA_FULL_ERROR"] = "1" if wants_trace else "0"

        return main

    return decorate


def _sentence(error: BaseException) -> str:
    """What to tell: our own message where one is in the chain of causes, else the error's."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, DistilPoseError):
            return str(cause)
        cause = cause.__cause__
    if isinstance(error, OSError) and error.filename is not None:
        return f"Cannot use '{error.filename}': {error.strerror}; give a path that exists and may be read and written."
    return " ".join(str(error).split())
