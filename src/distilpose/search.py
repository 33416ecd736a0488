"""A search for good settings: which to try next, and what to stop early, is optuna's; every trial is a training run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.override_parser.types import ChoiceSweep, IntervalSweep, Override, RangeSweep
from hydra.core.utils import JobReturn

from distilpose.errors import DistilPoseError, check_number
from distilpose.files import write_text

if TYPE_CHECKING:
    import optuna

JOURNAL = "study.journal"
Launch = Callable[[Sequence[Sequence[str]], int], Sequence[JobReturn]]


def open_study(folder: str | Path, **options: Any) -> optuna.Study:
    """The study in a sweep's folder, made if it is not there; any number of processes may have it open.

    Raises:
        DistilPoseError: optuna is not installed.
    """
    try:
        import optuna
        from optuna.storages.journal import JournalFileBackend
    except ImportError as error:
        raise DistilPoseError("sweep=search needs optuna: pip install 'distilpose[search]'.") from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    storage = optuna.storages.JournalStorage(JournalFileBackend(str(Path(folder) / JOURNAL)))
    return optuna.create_study(
        storage=storage, study_name="search", direction="maximize", load_if_exists=True, **options
    )


class Search:
    """Trials of settings, so many at a time, that go on where they were stopped.

    Args:
        folder: of the sweep; holds the study, each trial's run, trials.md and best.yaml.
        overrides: of the command line; those that sweep are searched.
        trials: how many.
        jobs: how many are launched at a time.
        startup: trials drawn at random before optuna's sampler (TPE) and its pruner (median) have a say.
        warmup: epochs before a trial may be stopped.
        seed: of the draws.
    """

    def __init__(
        self,
        folder: str | Path,
        overrides: Sequence[Override],
        trials: int = 20,
        jobs: int = 1,
        startup: int = 5,
        warmup: int = 0,
        seed: int = 0,
    ):
        for name, value, least in (
            ("trials", trials, 1),
            ("jobs", jobs, 1),
            ("startup", startup, 1),
            ("warmup", warmup, 0),
        ):
            check_number(f"hydra.sweeper.{name}", value, least=least, whole=True)
        self.folder, self.trials, self.jobs = Path(folder), trials, jobs
        swept = [override for override in overrides if override.is_sweep_override()]
        self.space = {override.get_key_element(): _distribution(override) for override in swept}
        if not self.space:
            raise DistilPoseError(
                "There is nothing to search: give settings to choose from, such as 'optimizer.lr=tag(log,interval(1e-4,1e-2))'."
            )
        self.fixed = [str(override.input_line) for override in overrides if not override.is_sweep_override()]
        self.folder.mkdir(parents=True, exist_ok=True)
        self.study = open_study(self.folder)
        import optuna

        self.study.sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=startup, constant_liar=True)
        self.study.pruner = pruner(startup, warmup)

    def run(self, launch: Launch) -> dict[str, Any]:
        """Launch trials until all are done; those that were running when the search was stopped come first."""
        import optuna

        state = optuna.trial.TrialState
        waiting = self.study.get_trials(deepcopy=False, states=(state.RUNNING,))
        while True:
            done = len(self.study.get_trials(deepcopy=False, states=(state.COMPLETE, state.PRUNED, state.FAIL)))
            count = min(self.jobs, self.trials - done)
            if count < 1:
                break
            batch: list[Any] = [waiting.pop(0) for _ in range(min(count, len(waiting)))]
            batch += [self.study.ask(self.space) for _ in range(count - len(batch))]
            jobs = [self.overrides_of(trial.number, trial.params) for trial in batch]
            for trial, result in zip(batch, launch(jobs, batch[0].number), strict=True):
                self._tell(trial.number, result)
            self._write()
        return self.best()

    def overrides_of(self, number: int, params: dict[str, Any]) -> list[str]:
        """The command line of a trial."""
        return [*self.fixed, *(f"{name}={value}" for name, value in params.items()), f"trial={number}"]

    def _tell(self, number: int, result: JobReturn) -> None:
        import optuna

        state = optuna.trial.TrialState
        trial = self.study.trials[number]
        try:
            value, why = result.return_value, "it had no validation"
        except Exception as error:  # whatever it failed by, the others go on
            value, why = None, " ".join(str(error).split())
        if trial.user_attrs.get("pruned"):
            self.study.tell(number, state=state.PRUNED)
        elif value is None:
            print(f"Trial {number} failed: {why}")
            self.study.tell(number, state=state.FAIL)
        else:
            self.study.tell(number, float(value))

    def best(self) -> dict[str, Any]:
        """The settings that did best, with their value; empty where no trial came to its end."""
        try:
            trial = self.study.best_trial
        except ValueError:
            return {}
        return {
            "trial": trial.number,
            "value": trial.value,
            "overrides": self.overrides_of(trial.number, trial.params)[:-1],
        }

    def _write(self) -> None:
        from omegaconf import OmegaConf

        names = list(self.space)
        lines = [f"| trial | state | value | {' | '.join(names)} |", "| --- " * (3 + len(names)) + "|"]
        for trial in self.study.trials:
            shown = list(trial.intermediate_values.values())
            value = trial.value if trial.value is not None else shown[-1] if shown else None
            cells = [trial.number, trial.state.name.lower(), "-" if value is None else f"{value:.4f}"]
            cells += [f"{v:.4g}" if isinstance(v, float) else v for v in (trial.params.get(name) for name in names)]
            lines.append("| " + " | ".join(map(str, cells)) + " |")
        write_text("\n".join(lines) + "\n", self.folder / "trials.md")
        write_text(OmegaConf.to_yaml(self.best()), self.folder / "best.yaml")


def pruner(startup: int, warmup: int) -> Any:
    """Stops what is below the median of earlier trials at the same epoch."""
    import optuna

    return optuna.pruners.MedianPruner(n_startup_trials=startup, n_warmup_steps=warmup)


def _distribution(override: Override) -> optuna.distributions.BaseDistribution:
    """What optuna draws a setting from."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    value = override.value()
    if isinstance(value, IntervalSweep):
        log, low, high = "log" in value.tags, value.start, value.end
        if isinstance(low, int) and isinstance(high, int):
            return IntDistribution(low, high, log=log)
        return FloatDistribution(float(low or 0), float(high or 0), log=log)
    if isinstance(value, RangeSweep) and isinstance(value.start, int) and isinstance(value.step, int):
        return IntDistribution(value.start, int(value.stop or 0) - 1, step=value.step)
    if isinstance(value, (ChoiceSweep, RangeSweep)):
        key = override.get_key_element()
        return CategoricalDistribution([text.removeprefix(f"{key}=") for text in override.sweep_string_iterator()])
    raise DistilPoseError(
        f"{override.input_line} cannot be searched: expected interval(…), range(…), choice(…) or values."
    )
