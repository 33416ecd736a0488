"""A search for good settings: which to try next, and what to stop early, is optuna's; every trial is a training run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from hydra.core.override_parser.types import ChoiceSweep, IntervalSweep, Override, RangeSweep

from distilpose.callbacks.pruning import open_study, pruner
from distilpose.errors import DistilPoseError, check_number
from distilpose.sweeps.trials import DONE, FAILED, LEFT, PRUNED, Trial, best_of, known, refuse_failed

if TYPE_CHECKING:
    import optuna

    from distilpose.sweeps.grid import Jobs

# optuna's words in those of the tables; what is running there when a search begins was left off
STATES = {"COMPLETE": DONE, "PRUNED": PRUNED, "FAIL": FAILED, "RUNNING": LEFT}
# what may be another when a search goes on: it says where and how trials run, not what they are
WHERE = ("launcher=", "logger=", "logger.", "threads=", "data.num_workers=")


class Search:
    """Trials of settings, so many at a time, that go on where they were stopped.

    Stopped and started again, a search draws the trials that it would have drawn: each has random numbers of its own.

    Args:
        launcher: of trials; its folder holds the study, each trial's run and the files of `distilpose.sweeps.trials`.
        overrides: of the command line; those that sweep are searched.
        trials: how many. One that failed is not tried again: the next command draws another in its place.
        jobs: how many are launched at a time.
        startup: trials drawn at random before optuna's sampler (TPE) and its pruner (median) have a say.
        warmup: epochs before a trial may be stopped.
        seed: of the draws.
    """

    def __init__(
        self,
        launcher: Jobs,
        overrides: Sequence[Override],
        trials: int,
        jobs: int,
        startup: int,
        warmup: int,
        seed: int,
    ):
        for name, value, least in (
            ("trials", trials, 1),
            ("jobs", jobs, 1),
            ("startup", startup, 1),
            ("warmup", warmup, 0),
            ("seed", seed, 0),
        ):
            check_number(f"hydra.sweeper.{name}", value, least=least, whole=True)
        self.launcher, self.trials, self.jobs = launcher, trials, jobs
        self.startup, self.seed = startup, seed
        # of one setting in the file and on the command line the later counts, be it searched or fixed
        overrides = list({override.get_key_element(): override for override in overrides}.values())
        swept = [override for override in overrides if override.is_sweep_override()]
        self.space = {override.get_key_element(): _distribution(override) for override in swept}
        if not self.space:
            raise DistilPoseError(
                "There is nothing to search: give settings to choose from, such as 'optimizer.lr=tag(log,interval(1e-4,1e-2))'."
            )
        self.fixed = [str(override.input_line) for override in overrides if not override.is_sweep_override()]
        launcher.place.mkdir(parents=True, exist_ok=True)
        self.study = open_study(launcher.place, pruner=pruner(startup, warmup))
        self._refuse_other([str(override.input_line) for override in swept])
        self.failed_before = len(self._trials(FAILED))

    def _refuse_other(self, searched: Sequence[str]) -> None:
        """Refuse to go on with a search of something else: its values cannot be compared."""
        asked = [*searched, *(word for word in self.fixed if not word.startswith(WHERE))]
        before = self.study.user_attrs.get("asked")
        if before is None or not self.study.trials:
            self.study.set_user_attr("asked", asked)
        elif sorted(before) != sorted(asked):
            then, now = ([w for w in one if w not in other] for one, other in ((before, asked), (asked, before)))
            raise DistilPoseError(
                f"'{self.launcher.place}' holds a search of something else (then {' '.join(then) or 'nothing more'}, now "
                f"{' '.join(now) or 'nothing more'}): give what was given then, or choose another hydra.sweep.dir."
            )

    def run(self) -> Trial | None:
        """Launch trials until all are done, those that were running when the search was stopped first; gives the best.

        Raises:
            DistilPoseError: trials failed; the others have been run.
        """
        waiting = [trial for found in self._trials(LEFT) if (trial := self._taken_up(found)) is not None]
        try:
            while True:
                ended = len(self._trials(DONE, PRUNED, FAILED)) - self.failed_before
                count = min(self.jobs, self.trials - ended)
                if count < 1:
                    break
                batch, waiting = waiting[:count], waiting[count:]
                while len(batch) < count:
                    batch.append(self._asked())
                results = self.launcher.launch([self._overrides(trial) for trial in batch], batch[0].number)
                for trial, result in zip(batch, results, strict=True):
                    self._tell(trial, result)
                self.launcher.write(self.told(), list(self.space))
        finally:
            told = self.told()
            text = self.launcher.write(told, list(self.space))
        print(f"\n{text}\n\nWritten to {self.launcher.place}")
        failed = [trial for trial in told if trial.state == FAILED]
        others = [trial for trial in told if trial.state != FAILED]
        refuse_failed(
            self.launcher.place,
            [*others, *failed[self.failed_before :]],
            "mend what is told, and the same command draws others in their place",
        )
        return best_of(told)

    def _trials(self, *states: str) -> list[optuna.trial.FrozenTrial]:
        return [trial for trial in self.study.get_trials(deepcopy=False) if STATES.get(trial.state.name) in states]

    def _seed(self, number: int) -> None:
        """Random numbers of a trial's own, so that a search that goes on does not repeat its first draws."""
        import optuna

        (seed,) = np.random.SeedSequence((self.seed, number)).generate_state(1)
        self.study.sampler = optuna.samplers.TPESampler(
            seed=int(seed), n_startup_trials=self.startup, constant_liar=True
        )

    def _asked(self) -> optuna.trial.Trial:
        self._seed(len(self.study.get_trials(deepcopy=False)))
        return self.study.ask(self.space)

    def _taken_up(self, found: optuna.trial.FrozenTrial) -> optuna.trial.Trial | None:
        """A trial that was running, with what a kill while it was asked for left open; None if it was being stopped."""
        import optuna

        if found.user_attrs.get("pruned"):
            self.study.tell(found.number, state=optuna.trial.TrialState.PRUNED)
            return None
        self._seed(found.number)
        trial = optuna.trial.Trial(self.study, found._trial_id)
        for name, kind in self.space.items():
            trial._suggest(name, kind)  # gives what is there
        return trial

    def _overrides(self, trial: optuna.trial.Trial | optuna.trial.FrozenTrial) -> list[str]:
        """The command line of a trial."""
        drawn = (f"{name}={trial.params[name]}" for name in self.space if name in trial.params)
        return [*self.fixed, *drawn, f"trial={trial.number}"]

    def _tell(self, trial: optuna.trial.Trial, result: Trial) -> None:
        import optuna

        state = optuna.trial.TrialState
        failed = result.state == FAILED or not known(result.value)
        trial.set_user_attr("folder", result.folder)
        if self.study.trials[trial.number].user_attrs.get("pruned"):
            self.study.tell(trial, state=state.PRUNED)
        elif failed:
            trial.set_user_attr("why", result.note or f"its {self.launcher.monitor} is {result.value}")
            self.study.tell(trial, state=state.FAIL)
        else:
            self.study.tell(trial, result.value)

    def told(self) -> list[Trial]:
        """Every trial, as it stands."""
        return [self._told(trial) for trial in self.study.get_trials(deepcopy=False)]

    def _told(self, trial: optuna.trial.FrozenTrial) -> Trial:
        overrides, state = self._overrides(trial), STATES[trial.state.name]
        if state == LEFT:
            return self.launcher.look(overrides, trial.number)
        shown = [trial.value] if trial.value is not None else trial.intermediate_values.values()
        value, last = max(shown, default=None), max(trial.intermediate_values, default=0)
        note = trial.user_attrs.get("why", "") if state == FAILED else f"after epoch {last}" if state == PRUNED else ""
        return Trial(trial.user_attrs.get("folder", f"trial {trial.number}"), overrides, state, value, note)


def _distribution(override: Override) -> optuna.distributions.BaseDistribution:
    """What optuna draws a setting from."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    value = override.value()
    if isinstance(value, IntervalSweep):
        log, low, high = "log" in value.tags, value.start, value.end
        if not (low or 0) < (high or 0) or (log and not (low or 0) > 0):
            raise DistilPoseError(
                f"{override.input_line} cannot be searched: expected interval(low,high) with low < high, both above 0 for log."
            )
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
