"""A search for good settings: optuna chooses the next settings and the trials to prune; every trial is a training run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep

from distilpose.callbacks.study import SharedStudy
from distilpose.errors import DistilPoseError
from distilpose.evaluation import has_value
from distilpose.sweeps.trials import (
    DONE,
    FAILED,
    INTERRUPTED,
    NOT_STARTED,
    PRUNED,
    Trial,
    best_of,
    is_finite,
    raise_if_failed,
)

if TYPE_CHECKING:
    import optuna

    from distilpose.sweeps.sweep import Sweep

# states of optuna's trials; a trial that is running when a search starts was interrupted, and one that waits was enqueued
STATES = {"COMPLETE": DONE, "PRUNED": PRUNED, "FAIL": FAILED, "RUNNING": INTERRUPTED, "WAITING": NOT_STARTED}
# a search stops if at least this many trials have failed for one reason, and none has ended well
SAME_FAILURES = 3
# settings that may change when a search is resumed: they do not change the results of trials
NOT_COMPARED = ("launcher=", "logger=", "logger.", "threads=", "data.num_workers=")


class Search:
    """Launches trials in batches, and resumes after an interruption.

    The draws of each trial have their own seed, so that a resumed search draws the same trials as an uninterrupted one.

    Args:
        sweep: launches the trials; its folder holds the study, the run of each trial, and the result files.
        overrides: overrides of the command line; those with a range or several values are searched.
        trials: number of trials. A failed trial is not retried: the next command draws another one instead.
        jobs: number of trials launched at a time.
        startup: number of random trials before optuna's sampler (TPE) and pruner (median) are used.
        warmup: epochs before a trial may be pruned.
        seed: seed of the draws.
    """

    def __init__(
        self, sweep: Sweep, overrides: Sequence[Override], trials: int, jobs: int, startup: int, warmup: int, seed: int
    ):
        self.sweep, self.trials, self.jobs = sweep, trials, jobs
        self.startup, self.seed = startup, seed
        # if a setting is given twice (file and command line), the later value is used
        overrides = list({override.get_key_element(): override for override in overrides}.values())
        searched = [override for override in overrides if override.is_sweep_override()]
        self.space = {override.get_key_element(): _distribution(override) for override in searched}
        if not self.space:
            raise DistilPoseError(
                "There is nothing to search: sweep over a setting, such as 'optimizer.lr=tag(log,interval(1e-4,1e-2))'."
            )
        self.fixed = [str(override.input_line) for override in overrides if not override.is_sweep_override()]
        sweep.folder.mkdir(parents=True, exist_ok=True)
        self.study = SharedStudy(sweep.folder, startup, warmup)
        self._check_same_search([str(override.input_line) for override in searched])

    def _check_same_search(self, searched: Sequence[str]) -> None:
        """Raise an error if the folder holds a search with other settings: their values cannot be compared."""
        current = [*searched, *(override for override in self.fixed if not override.startswith(NOT_COMPARED))]
        study = self.study.study
        earlier = study.user_attrs.get("asked")
        if earlier is None or not self.study.trials:
            study.set_user_attr("asked", current)
        elif sorted(earlier) != sorted(current):
            then, now = (
                " ".join(override for override in one if override not in other) or "nothing else"
                for one, other in ((earlier, current), (current, earlier))
            )
            raise DistilPoseError(
                f"'{self.sweep.folder}' holds another search (then {then}, now {now}): give the same settings as then, or "
                "choose another hydra.sweep.dir."
            )

    def run(self) -> Trial | None:
        """Launch trials until all are done, interrupted ones first; return the best.

        Raises:
            DistilPoseError: some trials failed. All others were run, unless the first ones failed for one reason.
        """
        waiting = self._resume()
        failed_before = len(self._in_state(FAILED))
        try:
            while True:
                ended = len(self._in_state(DONE, PRUNED, FAILED)) - failed_before
                count = min(self.jobs, self.trials - ended)
                if count < 1:
                    break
                batch, waiting = waiting[:count], waiting[count:]
                while len(batch) < count:
                    batch.append(self.study.ask(self.space, self._sampler(len(self.study.trials))))
                results = self.sweep.launch([self._overrides(trial) for trial in batch], batch[0].number)
                for trial, result in zip(batch, results, strict=True):
                    self._finish(trial.number, result)
                self._write_table()
                if self._fails_for_one_reason():
                    break
        finally:
            table = self._write_table()
        print(f"\n{table}\n\nWritten to {self.sweep.folder}")
        results = [self._result(trial) for trial in self.study.trials]
        failed = [trial for trial in results if trial.state == FAILED]
        others = [trial for trial in results if trial.state != FAILED]
        raise_if_failed(
            self.sweep.folder,
            [*others, *failed[failed_before:]],
            "correct the cause, and run the same command to draw other trials instead",
        )
        return best_of(results)

    def _fails_for_one_reason(self) -> bool:
        """Whether the first trials all failed for one reason, so that a setting that they share is wrong."""
        reasons = [trial.user_attrs.get("why") for trial in self._in_state(FAILED)]
        return len(reasons) >= SAME_FAILURES and len(set(reasons)) == 1 and not self._in_state(DONE, PRUNED)

    def _in_state(self, *states: str) -> list[optuna.trial.FrozenTrial]:
        return [trial for trial in self.study.trials if STATES.get(trial.state.name) in states]

    def _resume(self) -> list[optuna.trial.FrozenTrial]:
        """Trials to resume. Interrupted trials are marked as pruned if they were pruned, as failed if settings are missing."""
        from optuna.trial import TrialState

        resumed = []
        for trial in self._in_state(INTERRUPTED):
            if trial.user_attrs.get("pruned"):
                self.study.study.tell(trial.number, state=TrialState.PRUNED)
            elif trial.params.keys() != self.space.keys():  # earlier versions drew the settings one by one
                self.study.set_attribute(trial.number, "why", "the search was killed while it was drawn")
                self.study.study.tell(trial.number, state=TrialState.FAIL)
            else:
                resumed.append(trial)
        return resumed

    def _sampler(self, number: int) -> optuna.samplers.BaseSampler:
        """A sampler seeded by the trial's number, so that a resumed search does not repeat its first draws."""
        from optuna.samplers import TPESampler

        (seed,) = np.random.SeedSequence((self.seed, number)).generate_state(1)
        return TPESampler(seed=int(seed), n_startup_trials=self.startup, constant_liar=True)

    def _overrides(self, trial: optuna.trial.FrozenTrial) -> list[str]:
        """The overrides of a trial's command line."""
        params = {**trial.system_attrs.get("fixed_params", {}), **trial.params}
        drawn = (f"{name}={params[name]}" for name in self.space if name in params)
        return [*self.fixed, *drawn, f"trial={trial.number}"]

    def _finish(self, number: int, result: Trial) -> None:
        """Record a trial's result (value, pruned or failed) in the study."""
        from optuna.trial import TrialState

        self.study.set_attribute(number, "folder", result.folder)
        if self.study.trials[number].user_attrs.get("pruned"):
            self.study.study.tell(number, state=TrialState.PRUNED)
        elif result.state == FAILED or not has_value(self.sweep.monitor, result.value):
            why = result.note or f"its {self.sweep.monitor} is {result.value}"
            self.study.set_attribute(number, "why", why)
            self.study.study.tell(number, state=TrialState.FAIL)
        else:
            self.study.study.tell(number, result.value)

    def _write_table(self) -> str:
        return self.sweep.write([self._result(trial) for trial in self.study.trials], list(self.space))

    def _result(self, trial: optuna.trial.FrozenTrial) -> Trial:
        """A trial of the study as a row of the table."""
        overrides, state = self._overrides(trial), STATES[trial.state.name]
        if state == INTERRUPTED:
            return self.sweep.inspect(overrides, trial.number)
        values = [trial.value] if trial.value is not None else trial.intermediate_values.values()
        value = max(filter(is_finite, values), default=None)
        last = max(trial.intermediate_values, default=0)
        note = trial.user_attrs.get("why", "") if state == FAILED else f"after epoch {last}" if state == PRUNED else ""
        return Trial(trial.user_attrs.get("folder", f"trial {trial.number}"), overrides, state, value, note)


def _distribution(override: Override) -> optuna.distributions.BaseDistribution:
    """Optuna's distribution for a searched setting; an interval that optuna rejects is an error."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    value = override.value()
    if isinstance(value, IntervalSweep):
        low, high = value.start, value.end
        is_integer = isinstance(low, int) and isinstance(high, int)
        kind: Any = IntDistribution if is_integer else FloatDistribution
        try:
            return kind(low, high, log="log" in value.tags)
        except ValueError as error:
            raise DistilPoseError(
                f"{override.input_line} cannot be searched ({error}): give interval(LOW,HIGH) with LOW below HIGH, and LOW "
                "above 0 with tag(log,…)."
            ) from error
    if isinstance(value, RangeSweep) and isinstance(value.start, int) and isinstance(value.step, int):
        return IntDistribution(value.start, int(value.stop or 0) - 1, step=value.step)
    key = override.get_key_element()
    return CategoricalDistribution([text.removeprefix(f"{key}=") for text in override.sweep_string_iterator()])
