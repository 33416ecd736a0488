"""Hydra's sweeper behind `-m sweep=search`; Hydra looks for it here, and what it does is in distilpose.search."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


class SearchSweeper(Sweeper):
    """Asks for settings, trains with them, and tells what came of it.

    Args:
        params: what to search, in Hydra's words for sweeps: interval(a, b), tag(log, interval(a, b)), range(a, b), choice(…)
            or values with commas.
        **options: of `distilpose.search.Search`.
    """

    def __init__(self, params: Mapping[str, Any] | None = None, **options: Any):
        self.params = dict(params or {})
        self.options = options

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Keep what launching needs."""
        self.place, self.parser = (
            config.hydra.sweep.dir,
            OverridesParser.create(config_loader=hydra_context.config_loader),
        )
        launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )
        self.launch = lambda batch, number: launcher.launch(batch, initial_job_idx=number)

    def sweep(self, arguments: list[str]) -> Any:
        """Run the search: arguments of the command line that sweep are searched, the others hold for every trial."""
        from distilpose.search import Search

        given = [*(f"{name}={value}" for name, value in self.params.items()), *arguments]
        return Search(self.place, self.parser.parse_overrides(given), **self.options).run(self.launch)


@dataclass
class SearchConf:
    """What `hydra.sweeper` takes; the defaults are in conf/sweep/search.yaml."""

    _target_: str = "hydra_plugins.distilpose_search.SearchSweeper"
    params: Any = None
    trials: int = 20
    jobs: int = 1
    startup: int = 5
    warmup: int = 0
    seed: int = 0


ConfigStore.instance().store(group="hydra/sweeper", name="distilpose_search", node=SearchConf, provider="distilpose")
