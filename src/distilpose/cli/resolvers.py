"""Functions that configuration files call by `${…}`."""

from __future__ import annotations

from pathlib import Path

from omegaconf import OmegaConf

# resume=auto: continue whatever the run's own folder holds
AUTO = "auto"


def run_directory(resume: str | None, fresh: str) -> str:
    """The folder that a run writes to.

    Args:
        resume: the setting of that name.
        fresh: a folder named by the time, inside one that is named by the run.

    Returns:
        With `resume=FOLDER` that folder; with `resume=auto` the one above `fresh`, which is the same at each start.
    """
    if resume == AUTO:
        return str(Path(fresh).parent)
    return resume if resume and Path(resume).is_dir() else fresh


def register_resolvers() -> None:
    """Make the resolvers known to OmegaConf; called before a configuration is composed or resolved."""
    OmegaConf.register_new_resolver("run_directory", run_directory, replace=True)
