"""Trials of a search that fall behind are stopped after a validation."""

from __future__ import annotations

from pathlib import Path

from lightning import Callback, LightningModule, Trainer

from distilpose.search import open_study, pruner


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
