"""A grid: one run for every combination of the swept values."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

from hydra.core.override_parser.types import Override

from distilpose.errors import DistilPoseError
from distilpose.runs import resume
from distilpose.runs.folders import CONFIG
from distilpose.sweeps.sweep import Sweep
from distilpose.sweeps.trials import DONE, Trial, raise_if_failed


def combinations(overrides: Sequence[Override]) -> list[list[str]]:
    """The overrides of each job: every combination of the values. If a name is given twice, the later value is used."""
    values: dict[str, list[str]] = {}
    for override in overrides:
        name = override.get_key_element()
        if override.is_sweep_override():  # Hydra raises an error for an interval, which has no list of values
            values[name] = [f"{name}={value}" for value in override.sweep_string_iterator()]
        else:
            values[name] = [f"{name}={override.get_value_element_as_str()}"]
    return [list(job) for job in itertools.product(*values.values())]


def run_grid(sweep: Sweep, jobs: Sequence[Sequence[str]], batch_size: int | None = None) -> list[float | None]:
    """Run every job of a grid, and return the value of each. The table is written even if jobs fail or are interrupted.

    Args:
        sweep: folder and launcher of the jobs.
        jobs: overrides of each job.
        batch_size: number of jobs launched at a time; None launches all.

    Raises:
        DistilPoseError: some jobs failed; all others were run.
    """
    _check_distinct_folders(sweep, jobs)
    _check_unused_folders(sweep, jobs)
    sweep.save_config()
    if sweep.sequential:  # write the table after each job
        batch_size = 1
    trials: list[Trial] = []
    try:
        while len(trials) < len(jobs):
            trials += sweep.launch(jobs[len(trials) :][:batch_size], len(trials))
            if sweep.sequential and len(trials) < len(jobs):
                _write_table(sweep, jobs, trials)
    finally:
        table = _write_table(sweep, jobs, trials)
    if table:
        print(f"\n{table}\n\nWritten to {sweep.folder}")
    raise_if_failed(sweep.folder, trials, "correct the cause, and run the same command with resume=auto to retry them")
    return [trial.value for trial in trials]


def _check_distinct_folders(sweep: Sweep, jobs: Sequence[Sequence[str]]) -> None:
    """Raise an error if two jobs have the same folder: the second would fail or resume the first."""
    seen: dict[Path, Sequence[str]] = {}
    for number, job in enumerate(jobs):
        folder = sweep.job_folder(job, number)
        other = seen.setdefault(folder, job)
        if other is not job:
            differences = [[override for override in a if override not in b] for a, b in ((other, job), (job, other))]
            one, two = (" ".join(overrides) or "the same settings" for overrides in differences)
            raise DistilPoseError(
                f"The jobs with {one} and with {two} share the folder '{folder}': set hydra.sweep.subdir to a name that "
                "contains every setting swept over."
            )


def _check_unused_folders(sweep: Sweep, jobs: Sequence[Sequence[str]]) -> None:
    """Raise an error if the folder of a job holds another run: the job would fail, and replace that run in the table."""
    if not sweep.writes_results or sweep.config.resume not in (None, resume.AUTO):
        return
    if sweep.config.resume == resume.AUTO:
        for number, job in enumerate(jobs):
            trial = sweep.inspect(job, number)
            # only a readable run that has finished an epoch; a damaged run is left to its own job
            if trial.state == DONE or trial.note:
                sweep.check_resumable(job, number)
        return
    folders = [sweep.job_folder(job, number) for number, job in enumerate(jobs)]
    used = [folder for folder in folders if (folder / CONFIG).is_file()]
    if used:
        raise DistilPoseError(
            f"{len(used)} of {len(jobs)} jobs already have a run in their folder (first {used[0]}): set resume=auto to "
            "resume these runs, or choose another hydra.sweep.dir."
        )


def _write_table(sweep: Sweep, jobs: Sequence[Sequence[str]], trials: Sequence[Trial]) -> str:
    if not sweep.writes_results:
        return ""
    rest = [sweep.inspect(job, number) for number, job in enumerate(jobs) if number >= len(trials)]
    return sweep.write([*trials, *rest])
