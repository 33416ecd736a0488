"""Trials of a search that fall behind are stopped after a validation."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning import Callback, LightningModule, Trainer

from distilpose.errors import DistilPoseError

if TYPE_CHECKING:
    import optuna

JOURNAL = "study.journal"


class Pruning(Callback):
    """Reports the monitored metric to the search after each validation, and stops the run where the search says so.

    Args:
        folder: of the search.
        trial: number of this run's trial; None, as in training the best anew, reports nothing.
        monitor: metric, the higher the better.
        startup: as of the search.
        warmup: as of the search.
    """

    def __init__(self, folder: str | Path, trial: int | None, monitor: str, startup: int, warmup: int):
        self.folder, self.number, self.monitor = Path(folder), trial, monitor
        self.startup, self.warmup = startup, warmup

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Report, and stop all processes alike."""
        if trainer.sanity_checking or self.number is None:
            return
        stop = trainer.is_global_zero and self._falls_behind(self.number, trainer.current_epoch, trainer)
        if trainer.strategy.broadcast(stop):
            trainer.should_stop = True

    def _falls_behind(self, number: int, epoch: int, trainer: Trainer) -> bool:
        import optuna

        study = open_study(self.folder, pruner=pruner(self.startup, self.warmup))
        trial = optuna.trial.Trial(study, study.trials[number]._trial_id)
        if epoch + 1 not in study.trials[number].intermediate_values:  # else of a run that was stopped after it
            trial.report(float(trainer.callback_metrics[self.monitor]), epoch + 1)
        last = epoch + 1 >= (trainer.max_epochs or 0)
        if last or not trial.should_prune():
            return False
        trial.set_user_attr("pruned", True)
        print(f"Trial {number} is stopped after epoch {epoch + 1}: it is below the median of those before it.")
        return True


def open_study(folder: str | Path, **options: Any) -> optuna.Study:
    """The study in a sweep's folder, made if it is not there; any number of processes may have it open.

    Raises:
        DistilPoseError: optuna is not installed, or the study's file is damaged.
    """
    try:
        import optuna
        from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
    except ImportError as error:
        raise DistilPoseError("sweep=search needs optuna: pip install 'distilpose[search]'.") from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    file = (Path(folder) / JOURNAL).resolve()
    # optuna takes a lock that was left by a kill for void after 30 s
    lock = JournalFileOpenLock(str(file))
    lock.acquire()
    try:
        _end_last_line(file)
    finally:
        lock.release()
    try:
        storage = optuna.storages.JournalStorage(JournalFileBackend(str(file), lock_obj=lock))
        return optuna.create_study(
            storage=storage, study_name="search", direction="maximize", load_if_exists=True, **options
        )
    except (ValueError, KeyError, AssertionError) as error:
        raise DistilPoseError(
            f"'{file}' is damaged ({error}): remove its damaged lines, or choose another hydra.sweep.dir."
        ) from error


def _end_last_line(file: Path) -> None:
    """Cut off a line that a kill or a full disk left half written: optuna would write its next one behind it."""
    content = file.read_bytes() if file.is_file() else b""
    if content and not content.endswith(b"\n"):
        with open(file, "r+b") as journal:
            journal.truncate(content.rfind(b"\n") + 1)


def pruner(startup: int, warmup: int) -> optuna.pruners.BasePruner:
    """Stops what is below the median of earlier trials at the same epoch."""
    import optuna

    return optuna.pruners.MedianPruner(n_startup_trials=startup, n_warmup_steps=warmup)
