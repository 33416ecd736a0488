"""Functions that configuration files call as `${…}`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

# resume=auto: resume the run in the run's own folder, if there is one
AUTO = "auto"


def run_directory(resume: Any, fresh: str) -> str:
    """The folder that a run writes to.

    Args:
        resume: the setting of that name, which is not validated yet.
        fresh: folder of a new run: NAME/TIME.

    Returns:
        FOLDER with `resume=FOLDER`; NAME, which is the same at each start, with `resume=auto`; else NAME/TIME.
    """
    if resume == AUTO:
        return str(Path(fresh).parent)
    return resume if isinstance(resume, str) and Path(resume).is_dir() else fresh


def register_resolvers() -> None:
    """Register the resolvers. Call it before a configuration is composed or resolved."""
    OmegaConf.register_new_resolver("run_directory", run_directory, replace=True)
