"""A grid: every combination of the values swept over."""

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
    """Every combination of the values of overrides, as overrides of one job each; of a name given twice, the later counts.

    Raises:
        DistilPoseError: an override sweeps over an interval, which has no finite list of values.
    """
    values: dict[str, list[str]] = {}
    for override in overrides:
        name = override.get_key_element()
        if not override.is_sweep_override():
            values[name] = [f"{name}={override.get_value_element_as_str()}"]
        elif override.is_discrete_sweep():
            values[name] = [f"{name}={value}" for value in override.sweep_string_iterator()]
        else:
            raise DistilPoseError(
                f"{override.input_line} is no list of values, which a grid needs: give values separated by commas, or use "
                "sweep=search."
            )
    return [list(job) for job in itertools.product(*values.values())]


def run_grid(sweep: Sweep, jobs: Sequence[Sequence[str]], batch_size: int | None = None) -> list[float | None]:
    """Run every job of a grid, and return the value of each. The table is written however the jobs end.

    Args:
        sweep: folder and launcher of the jobs.
        jobs: overrides of each job.
        batch_size: jobs launched at a time; None launches all.

    Raises:
        DistilPoseError: some jobs failed; the others were run.
    """
    _check_distinct_folders(sweep, jobs)
    _check_unused_folders(sweep, jobs)
    sweep.save_config()
    if sweep.sequential:  # the table then grows with each job
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
    """Of two jobs in one folder, the second would fail or resume what the first has trained."""
    seen: dict[Path, Sequence[str]] = {}
    for number, job in enumerate(jobs):
        folder = sweep.job_folder(job, number)
        other = seen.setdefault(folder, job)
        if other is not job:
            differences = [[word for word in a if word not in b] for a, b in ((other, job), (job, other))]
            one, two = (" ".join(words) or "the same settings" for words in differences)
            raise DistilPoseError(
                f"The jobs with {one} and with {two} share the folder '{folder}': set hydra.sweep.subdir to a name that "
                "contains every setting swept over."
            )


def _check_unused_folders(sweep: Sweep, jobs: Sequence[Sequence[str]]) -> None:
    """A job whose folder holds another run would fail, and replace that run in the table by a failure."""
    if not sweep.writes_results or sweep.config.resume not in (None, resume.AUTO):
        return
    if sweep.config.resume == resume.AUTO:
        for number, job in enumerate(jobs):
            found = sweep.inspect(job, number)
            # the run is readable and has finished an epoch; a damaged one fails its own job alone
            if found.state == DONE or found.note:
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
