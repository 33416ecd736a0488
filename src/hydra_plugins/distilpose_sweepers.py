"""The sweepers that Hydra uses for `-m`. Hydra loads plugins only from the package `hydra_plugins`.

Hydra imports this module in every command, so the imports of the sweeps are inside the methods.
"""

import os
from collections.abc import Mapping
from typing import Annotated, Any

from annotated_types import Ge
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.plugins import Plugins
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf


class DistilPoseSweeper(Sweeper):
    """Base class of the sweepers: setup and parsing."""

    hydra_context: HydraContext
    config: DictConfig
    launcher: Launcher

    def __init__(self, params: Mapping[str, Any] | None):
        self.params = dict(params or {})

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Keep the configuration, check the sweeper's settings, and create the launcher."""
        from distilpose.cli.validate_settings import validate

        self.hydra_context, self.config = hydra_context, config
        settings = OmegaConf.to_container(config.hydra.sweeper, resolve=True)
        validate(OmegaConf.create({"hydra": {"sweeper": settings}}), object)
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def parse(self, arguments: list[str]) -> list[Override]:
        """Parse the overrides of `hydra.sweeper.params` and, after them, those of the command line."""
        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        return parser.parse_overrides([*(f"{name}={value}" for name, value in self.params.items()), *arguments])


class GridSweeper(DistilPoseSweeper):
    """Run every combination of the swept values.

    Hydra's BasicSweeper is not used because it stops at the first failed job and writes no table.

    Args:
        max_batch_size: number of jobs passed to the launcher at a time; null passes all.
        params: values of each setting to sweep over, as in `loss: regression,rle`.
    """

    def __init__(self, max_batch_size: Annotated[int, Ge(1)] | None = None, params: Mapping[str, Any] | None = None):
        super().__init__(params)
        self.max_batch_size = max_batch_size

    def sweep(self, arguments: list[str]) -> Any:
        """Run the grid, and return the value of each job."""
        from distilpose.sweeps.grid import combinations, run_grid
        from distilpose.sweeps.sweep import Sweep

        jobs = combinations(self.parse(arguments))
        self.validate_batch_is_legal(jobs)
        sweep = Sweep(self.config, self.hydra_context, self.launcher)
        with sweep.exclusive():
            return run_grid(sweep, jobs, self.max_batch_size)


class SearchSweeper(DistilPoseSweeper):
    """Search for good settings with optuna.

    Hydra's optuna sweeper is not used because it keeps its study in memory: it cannot resume, or prune trials.

    Args:
        params: settings to search, in Hydra's sweep syntax: interval(a, b), tag(log, interval(a, b)), range(a, b), choice(…)
            or values separated by commas.
        trials: number of trials.
        jobs: number of trials launched at a time.
        startup: number of random trials before optuna's sampler (TPE) and pruner (median) are used.
        warmup: epochs before a trial may be pruned.
        seed: seed of the draws.
    """

    def __init__(
        self,
        params: Mapping[str, Any] | None = None,
        trials: Annotated[int, Ge(1)] = 20,
        jobs: Annotated[int, Ge(1)] = 1,
        startup: Annotated[int, Ge(1)] = 5,
        warmup: Annotated[int, Ge(0)] = 0,
        seed: Annotated[int, Ge(0)] = 0,
    ):
        super().__init__(params)
        self.settings = {"trials": trials, "jobs": jobs, "startup": startup, "warmup": warmup, "seed": seed}

    def sweep(self, arguments: list[str]) -> Any:
        """Run the search. Arguments with a range or several values are searched, the others apply to every trial."""
        from distilpose.errors import DistilPoseError
        from distilpose.sweeps.search import Search
        from distilpose.sweeps.sweep import Sweep

        for name in ("check", "lr_find"):
            if self.config[name]:
                raise DistilPoseError(
                    f"{name}=true works for a single run, not for a search: leave out -m and sweep=…."
                )
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            raise DistilPoseError(
                "A search is a single process that starts the processes of its trials: start it without torchrun, and set "
                "trainer.devices=N."
            )
        sweep = Sweep(self.config, self.hydra_context, self.launcher)
        with sweep.exclusive():
            return Search(sweep, self.parse(arguments), **self.settings).run()
