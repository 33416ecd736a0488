"""The optuna study of a search: a journal file that processes on several machines may share.

Optuna's study and storage are used, with two additions. Optuna's file backend does not repair a line that was written only in
part when a process was killed. And a training process knows only the number of its trial.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from distilpose.errors import DistilPoseError

if TYPE_CHECKING:
    import optuna

JOURNAL = "study.journal"
NAME = "search"


class SharedStudy:
    """The study in a sweep's folder, created if it is missing.

    Args:
        folder: folder of the sweep.
        startup: number of finished trials before the pruner is used.
        warmup: number of epochs before a trial may be pruned.

    Raises:
        DistilPoseError: optuna is not installed, or the study's file is damaged or has another direction.
    """

    def __init__(self, folder: str | Path, startup: int, warmup: int):
        try:
            import optuna
            from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
        except ImportError as error:
            raise DistilPoseError("sweep=search needs optuna: pip install 'distilpose[search]'.") from error
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        file = (Path(folder) / JOURNAL).resolve()
        lock = JournalFileOpenLock(str(file))  # optuna ignores a lock older than 30 s, such as a killed process leaves
        lock.acquire()
        try:
            _remove_incomplete_line(file)
        finally:
            lock.release()
        pruner = optuna.pruners.MedianPruner(n_startup_trials=startup, n_warmup_steps=warmup)
        try:
            self.storage = optuna.storages.JournalStorage(JournalFileBackend(str(file), lock_obj=lock))
            self.study = optuna.create_study(
                storage=self.storage, study_name=NAME, direction="maximize", load_if_exists=True, pruner=pruner
            )
        except (ValueError, KeyError, AssertionError) as error:
            raise DistilPoseError(
                f"'{file}' is damaged ({error}): remove its damaged lines, or choose another hydra.sweep.dir."
            ) from error
        directions = [direction.name.lower() for direction in self.study.directions]
        if directions != ["maximize"]:  # optuna keeps those of an existing study
            raise DistilPoseError(
                f"The study in '{file}' is to {' and '.join(directions)}, but a search maximises one metric: choose another "
                "hydra.sweep.dir."
            )

    @property
    def trials(self) -> list[optuna.trial.FrozenTrial]:
        """All trials, by number."""
        return self.study.get_trials(deepcopy=False)

    def ask(self, space: dict[str, Any], sampler: optuna.samplers.BaseSampler) -> optuna.trial.FrozenTrial:
        """Start the first trial that waits in the study (`optuna`'s enqueue_trial), or draw another one and add it as running.

        The settings are drawn in a copy of the study, so that the trial is added to the journal in a single line: if the
        process is killed, the journal has the complete trial or nothing of it. A waiting trial gets its settings, and those
        that it leaves open are drawn, before it starts.

        Raises:
            DistilPoseError: a waiting trial has a setting that is not in the search.
        """
        import optuna

        waits = optuna.trial.TrialState.WAITING
        trials = self.trials
        waiting = next((trial for trial in trials if trial.state == waits), None)
        if waiting is not None:
            _check_waiting(waiting, space)
        copy = optuna.create_study(direction="maximize", sampler=sampler)
        copy.add_trials([trial for trial in trials if trial.state != waits or trial is waiting])
        drawn = copy.ask(space)
        if waiting is not None:
            for name, distribution in space.items():
                internal = distribution.to_internal_repr(drawn.params[name])
                self.storage.set_trial_param(self._identifier(waiting.number), name, internal, distribution)
            self.storage.set_trial_state_values(self._identifier(waiting.number), optuna.trial.TrialState.RUNNING)
            return self.trials[waiting.number]
        trial = optuna.trial.create_trial(
            state=optuna.trial.TrialState.RUNNING, params=drawn.params, distributions=drawn.distributions
        )
        self.study.add_trial(trial)
        return self.trials[-1]

    def set_attribute(self, number: int, name: str, value: Any) -> None:
        """Set a user attribute of a running trial."""
        self.storage.set_trial_user_attr(self._identifier(number), name, value)

    def report(self, number: int, epoch: int, value: float) -> None:
        """Report a trial's value after an epoch; a resumed trial may report an epoch again."""
        if epoch not in self.trials[number].intermediate_values:
            self.storage.set_trial_intermediate_value(self._identifier(number), epoch, value)

    def should_prune(self, number: int) -> bool:
        """Whether the pruner stops a trial, from the values reported so far."""
        return self.study.pruner.prune(self.study, self.trials[number])

    def _identifier(self, number: int) -> int:
        return self.storage.get_trial_id_from_study_id_trial_number(self.storage.get_study_id_from_name(NAME), number)


def _check_waiting(trial: optuna.trial.FrozenTrial, space: dict[str, Any]) -> None:
    """Raise unless the settings of a waiting trial are in the search. Optuna ignores others, and takes values out of range."""
    fixed = trial.system_attrs.get("fixed_params", {})
    for name, value in fixed.items():
        if name not in space:
            raise DistilPoseError(
                f"The waiting trial {trial.number} sets {name}={value}, which is not searched: expected {', '.join(space)}."
            )
        try:
            inside = space[name]._contains(space[name].to_internal_repr(value))
        except ValueError:
            inside = False
        if not inside:
            raise DistilPoseError(
                f"The waiting trial {trial.number} sets {name}={value!r}, which is outside the search: expected a value of "
                f"{space[name]}."
            )


def _remove_incomplete_line(file: Path) -> None:
    """Remove a last line without a newline: optuna would append its next entry to it."""
    content = file.read_bytes() if file.is_file() else b""
    if content and not content.endswith(b"\n"):
        with open(file, "r+b") as journal:
            journal.truncate(content.rfind(b"\n") + 1)
