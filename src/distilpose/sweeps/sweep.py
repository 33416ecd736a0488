"""One sweep, a grid or a search: its folder, its jobs and its result table.

Hydra's launchers run the jobs. This module adds that a failed job does not stop the others, and that an interrupted sweep
knows how many epochs each job has finished.
"""

from __future__ import annotations

import contextlib
import copy
import io
import os
import shlex
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext
from lightning.pytorch.utilities import rank_zero_only
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from distilpose.cli.command import error_message
from distilpose.cli.failures import is_user_error
from distilpose.errors import DistilPoseError
from distilpose.evaluation import has_value
from distilpose.files import remove_if_empty, write_text
from distilpose.runs import locks, resume
from distilpose.runs.folders import CONFIG, read_run
from distilpose.sweeps import jobs
from distilpose.sweeps.trials import DONE, FAILED, INTERRUPTED, NOT_STARTED, Trial, write_trials


class Sweep:
    """One sweep.

    Args:
        config: configuration of the sweep, composed by Hydra.
        context: Hydra's context.
        launcher: Hydra's launcher: sequential, joblib's or submitit's.
    """

    def __init__(self, config: DictConfig, context: HydraContext, launcher: Launcher):
        self.config, self.context, self.launcher = config, context, launcher
        self.folder = Path(config.hydra.sweep.dir)
        self.monitor = str(config.data.monitor)
        best = OmegaConf.select(config, "callbacks.checkpoint") or {}
        monitor, mode = best.get("monitor", self.monitor), best.get("mode", "max")
        if (monitor, mode) != (self.monitor, "max"):
            raise DistilPoseError(
                f"A sweep takes the highest {self.monitor} (data.monitor), but callbacks.checkpoint selects the "
                f"{mode} of {monitor}: set data.monitor, and leave callbacks.checkpoint as it is."
            )
        self._folders: dict[tuple[Any, ...], Path] = {}  # a cache: composing a job's configuration is slow
        launcher_name = str(config.hydra.launcher._target_)
        if "Slurm" in launcher_name and shutil.which("srun") is None:
            raise DistilPoseError(
                "launcher=slurm needs SLURM, but its command srun is not found: start the sweep on a login node of the "
                "cluster, or use launcher=local."
            )
        self.sequential, self._local_processes = launcher_name.endswith("BasicLauncher"), "joblib" in launcher_name

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Lock the sweep's folder: two sweeps in one folder would train the same runs and overwrite each other's table."""
        if not _is_rank_zero():
            yield
            return
        try:
            with locks.held(self.folder / "sweep.lock", wait=10):  # workers of a killed sweep end after some seconds
                yield
        finally:
            remove_if_empty(self.folder)  # it is empty after check=true

    @property
    def writes_results(self) -> bool:
        """Whether this process writes the sweep's files: rank zero does, if anything is trained."""
        return _is_rank_zero() and not (self.config.check or self.config.lr_find)

    def save_config(self) -> None:
        """Write the sweep's configuration into its folder."""
        if self.writes_results:
            write_text(OmegaConf.to_yaml(self.config), self.folder / "multirun.yaml")

    def launch(self, batch: Sequence[Sequence[str]], number: int) -> list[Trial]:
        """Run jobs, and return the outcome of each.

        If one process dies, the launcher stops the complete batch. With resume=auto, each half of the batch is then launched
        again, until the batch is only the job that kills its process.

        Args:
            batch: overrides of each job.
            number: number of the first job.
        """
        try:
            return [self._outcome(job) for job in self._launch(batch, number)]
        except DistilPoseError:
            raise
        except Exception as error:
            if len(batch) > 1 and self.config.resume == resume.AUTO:
                half = len(batch) // 2
                return [*self.launch(batch[:half], number), *self.launch(batch[half:], number + half)]
            reason = str(error).strip().partition("\n")[0].partition(". ")[0]  # without the advice and output after it
            note = f"its process died ({reason or type(error).__name__})"
            trials = [self.inspect(job, number + index) for index, job in enumerate(batch)]
            return [trial if trial.state == DONE else replace(trial, state=FAILED, note=note) for trial in trials]

    def _launch(self, batch: Sequence[Sequence[str]], number: int) -> Sequence[JobReturn]:
        if self._local_processes:
            os.environ[jobs.PARENT] = str(os.getpid())
        try:
            return self.launcher.launch(batch, initial_job_idx=number)
        finally:
            os.environ.pop(jobs.PARENT, None)

    def _outcome(self, job: JobReturn) -> Trial:
        assert job.hydra_cfg is not None
        relative = os.path.relpath(job.hydra_cfg.hydra.runtime.output_dir, self.folder.absolute())
        folder, overrides = str(self.folder / relative), list(job.overrides or [])
        try:
            with contextlib.redirect_stderr(io.StringIO()):  # Hydra prints a line before it raises
                return Trial(folder, overrides, DONE, job.return_value)
        except Exception as error:
            kind = "" if is_user_error(error) else f"{type(error).__name__}: "
            return Trial(folder, overrides, FAILED, note=kind + error_message(error))

    def inspect(self, overrides: Sequence[str], number: int) -> Trial:
        """Read the state of a job, and its number of finished epochs, from its folder."""
        folder = self.job_folder(overrides, number)
        try:
            run = read_run(folder, unfinished=True)
        except DistilPoseError:  # no epoch is finished
            state = INTERRUPTED if (folder / CONFIG).is_file() else NOT_STARTED
            return Trial(str(folder), list(overrides), state)
        epoch, values = int(run.rows[-1]["epoch"]), run.series(self.monitor).values()
        value = max((value for value in values if has_value(self.monitor, value)), default=None)
        if epoch >= run.planned:
            return Trial(str(folder), list(overrides), DONE, value)
        return Trial(str(folder), list(overrides), INTERRUPTED, value, f"after epoch {epoch} of {run.planned}")

    def job_folder(self, overrides: Sequence[str], number: int) -> Path:
        """The folder that a job writes to."""
        key = (number, *overrides)
        if key not in self._folders:
            with self._composed(overrides, number) as (folder, _):
                self._folders[key] = folder
        return self._folders[key]

    def check_resumable(self, overrides: Sequence[str], number: int) -> None:
        """Check that a job can resume the run in its folder.

        Raises:
            DistilPoseError: the run there has another configuration.
        """
        with self._composed(overrides, number) as (_, config):
            job_config = copy.deepcopy(config)
            with read_write(job_config), open_dict(job_config):
                del job_config["hydra"]
            resume.finished(job_config)

    @contextmanager
    def _composed(self, overrides: Sequence[str], number: int) -> Iterator[tuple[Path, DictConfig]]:
        """Compose a job's folder and configuration as the launcher will; inside the block, HydraConfig is the job's."""
        config = self.context.config_loader.load_sweep_config(self.config, list(overrides))
        with open_dict(config):
            config.hydra.job.num = config.hydra.job.id = number
        before = HydraConfig.instance().cfg
        HydraConfig.instance().set_config(config)  # for interpolations of ${hydra:…}
        try:
            folder = Path(config.hydra.sweep.dir) / str(OmegaConf.select(config, "hydra.sweep.subdir"))
            with read_write(config.hydra.runtime), open_dict(config.hydra.runtime):
                config.hydra.runtime.output_dir = str(folder.absolute())
            HydraConfig.instance().set_config(config)
            yield folder, config
        finally:
            HydraConfig.instance().cfg = before

    def write(self, trials: Sequence[Trial], names: Sequence[str] = ()) -> str:
        """Write table, best settings and picture; return the table as text."""
        complete = [replace(trial, command=self._command(trial)) for trial in trials]
        return write_trials(self.folder, complete, self.monitor, names)

    def _command(self, trial: Trial) -> str:
        """The command line that trains a trial again beside the sweep's folder. Without the trial's number it is not pruned."""
        overrides = [override for override in trial.overrides if not override.startswith("trial=")]
        folder = Path(f"{self.folder}_best")
        return shlex.join(jobs.build_command_line(self.config.hydra, overrides, folder, without=jobs.SWEEP_OVERRIDES))


def _is_rank_zero() -> bool:
    return not getattr(rank_zero_only, "rank", 0)
