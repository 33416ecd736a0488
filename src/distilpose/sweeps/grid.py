"""The jobs of a sweep: launched so that one that fails does not stop the rest, and looked up where they were stopped."""

from __future__ import annotations

import copy
import os
import shlex
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext
from lightning.pytorch.utilities import rank_zero_only
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from distilpose.cli.command import MISTAKES, error_message
from distilpose.errors import DistilPoseError
from distilpose.files import write_text
from distilpose.runs import locks, resume
from distilpose.runs.folders import CONFIG, read_run
from distilpose.sweeps import jobs
from distilpose.sweeps.trials import DONE, FAILED, LEFT, WAITING, Trial, refuse_failed, write_trials


class Jobs:
    """Jobs of one sweep.

    Args:
        config: of the sweep, as Hydra composed it.
        context: Hydra's.
        launcher: Hydra's: one after another, joblib's, submitit's.
    """

    def __init__(self, config: DictConfig, context: HydraContext, launcher: Launcher):
        self.config, self.context, self.launcher = config, context, launcher
        self.place = Path(config.hydra.sweep.dir)
        self.monitor = str(config.data.monitor)
        self._folders: dict[tuple[Any, ...], Path] = {}  # composing takes a while
        kind = str(config.hydra.launcher._target_)
        if "Slurm" in kind and shutil.which("srun") is None:
            raise DistilPoseError(
                "launcher=slurm needs SLURM, and its command srun is not here: start it where jobs are submitted, or take "
                "launcher=local."
            )
        if "joblib" in kind and config.hydra.launcher.n_jobs == 0:
            raise DistilPoseError(
                "hydra.launcher.n_jobs=0 would run no job: expected how many run side by side, or -1 for one a processor."
            )
        self.one_by_one, self._watched = kind.endswith("BasicLauncher"), "joblib" in kind

    @contextmanager
    def exclusive_sweep(self) -> Iterator[None]:
        """The sweep's folder to oneself: two sweeps in one would train the same runs and tell different tables."""
        if getattr(rank_zero_only, "rank", 0):
            yield
            return
        try:
            # loading processes of one that was killed last seconds
            with locks.held(self.place / "sweep.lock", wait=10):
                yield
        finally:
            with suppress(OSError):  # it holds something, as all but that of a check does
                self.place.rmdir()

    def keep_config(self) -> None:
        """Write the sweep's configuration into its folder, as Hydra's own sweeper does."""
        if self.writes:
            write_text(OmegaConf.to_yaml(self.config), self.place / "jobs.yaml")

    @property
    def writes(self) -> bool:
        """Whether this process writes what is told of the sweep: where nothing is trained none does, of several one."""
        return not (self.config.check or self.config.lr_find or getattr(rank_zero_only, "rank", 0))

    def launch(self, batch: Sequence[Sequence[str]], number: int) -> list[Trial]:
        """Run jobs, and say what came of each.

        A launcher gives up all of a batch when one of its processes dies. Where runs go on (resume=auto), halves of the batch
        are then launched again until the job that kills its process is alone.

        Args:
            batch: the overrides of each.
            number: of the first.
        """
        try:
            return [self._outcome(job) for job in self._launched(batch, number)]
        except DistilPoseError:
            raise
        except Exception as error:
            if len(batch) > 1 and self.config.resume == "auto":
                half = len(batch) // 2
                return [*self.launch(batch[:half], number), *self.launch(batch[half:], number + half)]
            told = str(error).strip().partition("\n")[0].partition(". ")[0]  # advice and the job's own output follow
            note = f"its process died ({told or type(error).__name__})"
            found = [self.look(job, number + index) for index, job in enumerate(batch)]
            return [trial if trial.state == DONE else replace(trial, state=FAILED, note=note) for trial in found]

    def _launched(self, batch: Sequence[Sequence[str]], number: int) -> Sequence[JobReturn]:
        if self._watched:
            os.environ[jobs.PARENT] = str(os.getpid())
        try:
            return self.launcher.launch(batch, initial_job_idx=number)
        finally:
            os.environ.pop(jobs.PARENT, None)

    def _outcome(self, job: JobReturn) -> Trial:
        assert job.hydra_cfg is not None
        below = os.path.relpath(job.hydra_cfg.hydra.runtime.output_dir, self.place.absolute())
        folder, overrides = str(self.place / below), list(job.overrides or [])
        if job.status == JobStatus.FAILED:  # its return_value would raise, with a line of Hydra's before
            error = job._return_value
            kind = "" if isinstance(error, MISTAKES) else f"{type(error).__name__}: "
            return Trial(folder, overrides, FAILED, note=kind + error_message(error))
        return Trial(folder, overrides, DONE, job.return_value)

    def look(self, overrides: Sequence[str], number: int) -> Trial:
        """What is found in the folder of a job that has not come back."""
        folder = self.folder(overrides, number)
        try:
            run = read_run(folder, unfinished=True)
        except DistilPoseError:  # no epoch has ended
            return Trial(str(folder), list(overrides), LEFT if (folder / CONFIG).is_file() else WAITING)
        epoch, values = int(run.rows[-1]["epoch"]), run.series(self.monitor).values()
        value = max(values, default=None)
        if epoch >= run.planned:
            return Trial(str(folder), list(overrides), DONE, value)
        return Trial(str(folder), list(overrides), LEFT, value, f"after epoch {epoch} of {run.planned}")

    def folder(self, overrides: Sequence[str], number: int) -> Path:
        """Where a job writes."""
        key = (number, *overrides)
        if key not in self._folders:
            with self._composed(overrides, number) as (place, _):
                self._folders[key] = place
        return self._folders[key]

    def refuse_another_run(self, overrides: Sequence[str], number: int) -> None:
        """Refuse what the job itself would: to go on with a run of another configuration in its folder."""
        with self._composed(overrides, number) as (_, config):
            own = copy.deepcopy(config)
            with read_write(own), open_dict(own):
                del own["hydra"]
            resume.finished(own)

    @contextmanager
    def _composed(self, overrides: Sequence[str], number: int) -> Iterator[tuple[Path, DictConfig]]:
        """A job's folder and its configuration, as the launcher will compose it; Hydra's own can be read inside the block."""
        config = self.context.config_loader.load_sweep_config(self.config, list(overrides))
        with open_dict(config):
            config.hydra.job.num = config.hydra.job.id = number
        before = HydraConfig.instance().cfg
        HydraConfig.instance().set_config(config)  # for what is read by ${hydra:…}
        try:
            place = Path(config.hydra.sweep.dir) / str(OmegaConf.select(config, "hydra.sweep.subdir"))
            with read_write(config.hydra.runtime), open_dict(config.hydra.runtime):
                config.hydra.runtime.output_dir = str(place.absolute())
            HydraConfig.instance().set_config(config)
            yield place, config
        finally:
            HydraConfig.instance().cfg = before

    def write(self, trials: Sequence[Trial], names: Sequence[str] = ()) -> str:
        """The table, the best, the picture; gives the table as text."""
        told = [replace(trial, command=self._command(trial)) for trial in trials]
        return write_trials(self.place, told, self.monitor, names)

    def _command(self, trial: Trial) -> str:
        """The command line that trains it anew, beside the sweep's folder; without its number no search has a say."""
        overrides = [word for word in trial.overrides if not word.startswith("trial=")]
        again = Path(f"{self.place}_best")
        return shlex.join(jobs.build_command_line(self.config.hydra, overrides, again, without=jobs.OF_A_SWEEP))


def run_grid(jobs: Jobs, batches: Sequence[Sequence[Sequence[str]]]) -> list[float | None]:
    """Run every job of a grid; its table is written whatever happens, and gives the values.

    Args:
        jobs: of the sweep.
        batches: of jobs that are launched at once, each its overrides.

    Raises:
        DistilPoseError: jobs failed; the others have been run.
    """
    if jobs.one_by_one:  # the table then grows with each
        batches = [[job] for batch in batches for job in batch]
    every = [job for batch in batches for job in batch]
    _refuse_shared(jobs, every)
    _refuse_taken(jobs, every)
    jobs.keep_config()
    trials: list[Trial] = []
    try:
        for batch in batches:
            trials += jobs.launch(batch, len(trials))
            if jobs.one_by_one and len(trials) < len(every):
                _tell(jobs, every, trials)
    finally:
        text = _tell(jobs, every, trials)
    if text:
        print(f"\n{text}\n\nWritten to {jobs.place}")
    refuse_failed(jobs.place, trials, "mend what is told, and the same command with resume=auto tries them again")
    return [trial.value for trial in trials]


def _refuse_shared(jobs: Jobs, every: Sequence[Sequence[str]]) -> None:
    """Of two jobs in one folder the second would fail, or go on with what the first has trained."""
    seen: dict[Path, Sequence[str]] = {}
    for number, job in enumerate(every):
        folder = jobs.folder(job, number)
        other = seen.setdefault(folder, job)
        if other is not job:
            one, two = (
                " ".join(word for word in a if word not in b) or "the same" for a, b in ((other, job), (job, other))
            )
            raise DistilPoseError(
                f"The jobs of {one} and of {two} have one folder, '{folder}': give a hydra.sweep.subdir that tells every job "
                "apart, by all that is swept over."
            )


def _refuse_taken(jobs: Jobs, every: Sequence[Sequence[str]]) -> None:
    """A folder that holds another run would fail its job, and the table tell of a failure in place of that run."""
    if not jobs.writes or jobs.config.resume not in (None, resume.AUTO):
        return
    if jobs.config.resume == resume.AUTO:
        for number, job in enumerate(every):
            found = jobs.look(job, number)
            # readable, with an epoch's end: a damaged one fails its own job alone
            if found.state == DONE or found.note:
                jobs.refuse_another_run(job, number)
        return
    taken = [folder for number, job in enumerate(every) if ((folder := jobs.folder(job, number)) / CONFIG).is_file()]
    if taken:
        raise DistilPoseError(
            f"{len(taken)} of {len(every)} jobs have a run in their folder already (first {taken[0]}): give resume=auto to go "
            "on with them, or choose another hydra.sweep.dir."
        )


def _tell(jobs: Jobs, every: Sequence[Any], trials: Sequence[Trial]) -> str:
    if not jobs.writes:
        return ""
    rest = [jobs.look(job, number) for number, job in enumerate(every) if number >= len(trials)]
    return jobs.write([*trials, *rest])
