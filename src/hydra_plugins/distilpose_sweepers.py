"""Hydra's sweepers behind `-m`; Hydra finds plugins by this package's name; the code is in distilpose.sweeps."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hydra._internal.core_plugins import basic_sweeper
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import MISSING, DictConfig


class GridSweeper(basic_sweeper.BasicSweeper):
    """Every combination of the values swept over, as Hydra's own; one that fails stops no other, and there is a table."""

    def sweep(self, arguments: list[str]) -> Any:
        """Run the grid."""
        from distilpose.sweeps.grid import Jobs, run_grid

        assert self.config is not None
        assert self.hydra_context is not None
        assert self.launcher is not None
        jobs = Jobs(self.config, self.hydra_context, self.launcher)
        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        given = parser.parse_overrides([*self._parse_config(), *arguments])
        batches = self.split_arguments(given, self.max_batch_size)
        for batch in batches:
            self.validate_batch_is_legal(batch)
        with jobs.exclusive_sweep():
            return run_grid(jobs, batches)


class SearchSweeper(Sweeper):
    """Asks for settings, trains with them, and tells what came of it.

    Args:
        params: what to search, in Hydra's words for sweeps: interval(a, b), tag(log, interval(a, b)), range(a, b), choice(…)
            or values with commas.
        **options: of `distilpose.sweeps.search.Search`.
    """

    def __init__(self, params: Mapping[str, Any] | None = None, **options: Any):
        self.params = dict(params or {})
        self.options = options

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Keep what launching needs."""
        self.settings, self.context = config, hydra_context
        self.by = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> Any:
        """Run the search: arguments of the command line that sweep are searched, the others hold for every trial."""
        from distilpose.errors import DistilPoseError
        from distilpose.sweeps.grid import Jobs
        from distilpose.sweeps.search import Search

        for name in ("check", "lr_find"):
            if self.settings[name]:
                raise DistilPoseError(
                    f"{name}=true looks at one run, from which a search learns nothing: leave -m out."
                )
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            raise DistilPoseError(
                "A search is one process that starts those of its trials: leave torchrun out and give trainer.devices=N."
            )
        jobs = Jobs(self.settings, self.context, self.by)
        parser = OverridesParser.create(config_loader=self.context.config_loader)
        given = [*(f"{name}={value}" for name, value in self.params.items()), *arguments]
        with jobs.exclusive_sweep():
            return Search(jobs, parser.parse_overrides(given), **self.options).run()


@dataclass
class SearchConf:
    """What `hydra.sweeper` takes; the values are in conf/sweep/search.yaml."""

    _target_: str = "hydra_plugins.distilpose_sweepers.SearchSweeper"
    params: Any = None
    trials: int = MISSING
    jobs: int = MISSING
    startup: int = MISSING
    warmup: int = MISSING
    seed: int = MISSING


ConfigStore.instance().store(group="hydra/sweeper", name="distilpose_search", node=SearchConf, provider="distilpose")
