"""Sweeps in real processes: failures, signals, kills, resuming, and their tables."""

from __future__ import annotations

import json
import os
import shlex
import signal
import sys
import time

import pytest
from omegaconf import OmegaConf
from processes import finish, start

from distilpose.callbacks.metrics_table import read_table

pytestmark = pytest.mark.slow

TINY = [
    "data=custom", "data.batch_size=4", "data.num_workers=0", "augmentation=none", "loss=regression", "model=student_xs",
    "model.depth=1", "model.width=32", "model.heads=2", "model.input_size=[64,48]", "scheduler.warmup_steps=0",
    "optimizer.lr=5e-3", "trainer.accelerator=cpu", "trainer.check_val_every_n_epoch=1", "trainer.num_sanity_val_steps=0",
    "logger=none", "~callbacks.pictures", "~callbacks.health", "~callbacks.details", "resume=auto", "data.monitor=val/PCK",
]  # fmt: skip
GRID = ["hydra.sweep.dir=sweep", "hydra.sweep.subdir=seed${seed}"]
JOBLIB = ["launcher=local", "hydra.launcher.n_jobs=2"]


def wait_for(process, reached, seconds=400):
    deadline = time.monotonic() + seconds
    while not reached():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)


def table(folder):
    """State and value of each run in trials.md."""
    rows = (folder / "trials.md").read_text().split("\n\n")[0].splitlines()[2:]
    cells = [[cell.strip() for cell in row.strip("| ").split("|")] for row in rows]
    return {run: (state, value.strip("*")) for run, state, value, *_ in cells}


@pytest.fixture
def run(run_train, tmp_path):
    """A function that runs the command: in this process, which has imported everything, unless its launcher needs another."""

    def call(*arguments):
        if JOBLIB[0] in arguments:  # its workers would outlive the command in this process
            return finish(start(tmp_path, *arguments))
        status, err = run_train(*arguments)
        return status, None, err

    return call


def figures(folder):
    rows = read_table(folder / "metrics.csv")
    for row in rows:
        del row["seconds"]
    return rows


@pytest.mark.parametrize(
    "launcher", [[], JOBLIB, ["hydra/launcher=submitit_local"]], ids=["one by one", "joblib", "submitit"]
)
def test_a_failed_job_does_not_stop_others_and_the_best_trains_again(run, tiny_coco, tmp_path, launcher):
    settings = [*TINY, f"data.root={tiny_coco(train=17)}", "trainer.max_epochs=2", *GRID, *launcher]
    if launcher == JOBLIB:  # its processes start workers in another way
        settings.append("data.num_workers=1")
    status, out, err = run("-m", *settings, "seed=-1,0,1")
    assert status == 1
    assert err.splitlines()[-1].startswith("error: 1 of 3 jobs failed, sweep/seed-1 (seed=-1")
    assert "Error executing job" not in err
    values = {
        f"seed{seed}": max(row["val/PCK"] for row in figures(tmp_path / "sweep" / f"seed{seed}")) for seed in (0, 1)
    }
    assert table(tmp_path / "sweep") == {
        "seed-1": ("failed", "-"),
        **{run: ("done", f"{value:.4f}") for run, value in values.items()},
    }
    assert (tmp_path / "sweep" / "trials.png").stat().st_size > 5000
    best = OmegaConf.load(tmp_path / "sweep" / "best.yaml")
    assert best.folder == f"sweep/{max(values, key=values.get)}"
    if launcher == JOBLIB:
        assert best.command in out
    if launcher:
        return
    words = shlex.split(best.command)
    assert words[:3] == ["python", "-m", "distilpose.train"]
    status, _, err = run(*words[3:])
    assert status == 0, err
    assert figures(tmp_path / "sweep_best") == figures(tmp_path / best.folder)


def test_a_signal_stops_the_whole_sweep_and_the_same_command_resumes_it(run, tiny_coco, tmp_path):
    settings = ["-m", *TINY, *GRID, f"data.root={tiny_coco(train=100)}", "trainer.max_epochs=3", "seed=-1,0,1"]
    process = start(tmp_path, *settings)
    wait_for(process, (tmp_path / "sweep" / "seed0" / "metrics.csv").is_file)
    process.send_signal(signal.SIGTERM)
    status, _, err = finish(process)
    assert status == 128 + signal.SIGTERM, err
    assert "SIGTERM" in err
    assert "resume=auto" in err
    rows = table(tmp_path / "sweep")
    assert [rows[run][0] for run in ("seed-1", "seed0", "seed1")] == ["failed", "interrupted", "not started"]
    assert not (tmp_path / "sweep" / "seed1").exists()
    assert (
        f"after epoch {len(figures(tmp_path / 'sweep' / 'seed0'))} of 3"
        in (tmp_path / "sweep" / "trials.md").read_text()
    )
    status, _, err = run(*settings)
    assert status == 1
    assert [state for state, _ in table(tmp_path / "sweep").values()] == ["failed", "done", "done"]
    reference = [word.replace("seed=-1,0,1", "seed=0").replace("dir=sweep", "dir=whole") for word in settings]
    assert run(*reference)[0] == 0
    assert figures(tmp_path / "sweep" / "seed0") == figures(tmp_path / "whole" / "seed0")


def test_concurrent_jobs_end_with_their_sweep_and_resume_with_it(run, tiny_coco, tmp_path):
    settings = ["-m", *TINY, *GRID, f"data.root={tiny_coco(train=100)}", "trainer.max_epochs=5", "seed=0,1,2"]
    process = start(tmp_path, *settings, *JOBLIB)
    folders = [tmp_path / "sweep" / f"seed{seed}" for seed in range(3)]
    wait_for(process, lambda: all((folder / "metrics.csv").is_file() for folder in folders[:2]))
    process.kill()
    process.wait()
    deadline = time.monotonic() + 400
    while any((folder / "run.lock").exists() for folder in folders):  # each saves, and unlocks its folder
        assert time.monotonic() < deadline
        time.sleep(0.1)
    reached = [len(figures(folder)) for folder in folders[:2]]
    assert any((folder / "checkpoints" / "recent.ckpt").is_file() for folder in folders[:2]) or reached == [5, 5]
    process.communicate()
    before = {
        folder: (folder / "metrics.csv").stat().st_mtime_ns for folder in folders[:2] if len(figures(folder)) == 5
    }
    status, _, err = run(*settings)  # one by one: how jobs are launched is no part of a run
    assert status == 0, err
    assert [state for state, _ in table(tmp_path / "sweep").values()] == ["done"] * 3
    assert [len(figures(folder)) for folder in folders] == [5] * 3
    assert all((folder / "metrics.csv").stat().st_mtime_ns == written for folder, written in before.items())


@pytest.mark.parametrize("launcher", [JOBLIB, ["hydra/launcher=submitit_local"]], ids=["joblib", "submitit"])
def test_a_killed_job_does_not_stop_others(run, tiny_coco, tmp_path, monkeypatch, launcher):
    killer = tmp_path / "own" / "callbacks"
    killer.mkdir(parents=True)
    (killer / "deadly.yaml").write_text(
        "defaults: [default]\ndeadly:\n  _target_: deadly.Deadly\n  seed: ${seed}\n"
        "pictures: null\nhealth: null\ndetails: null\n"
    )
    (tmp_path / "deadly.py").write_text(
        "import os, signal\nfrom lightning import Callback\n\n\nclass Deadly(Callback):\n"
        "    def __init__(self, seed):\n        self.seed = seed\n\n"
        "    def on_train_batch_start(self, *args):\n"
        "        if self.seed == 1:\n            os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    settings = [word for word in TINY if not word.startswith("~")]
    settings += [*GRID, *launcher, f"data.root={tiny_coco()}", "trainer.max_epochs=1", "callbacks=deadly"]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), *sys.path]))
    status, _, err = run("--config-dir", "own", "-m", *settings, "seed=0,1")
    assert status == 1
    assert "1 of 2 jobs failed, sweep/seed1 (its process died" in err
    assert [state for state, _ in table(tmp_path / "sweep").values()] == ["done", "failed"]
    assert "--config-dir" in OmegaConf.load(tmp_path / "sweep" / "best.yaml").command


def test_trials_are_trainings(run, tiny_coco, tmp_path):
    settings = ["-m", "sweep=search", *TINY, f"data.root={tiny_coco(train=40)}", "trainer.max_epochs=3"]
    settings += ["hydra.sweep.dir=found", "hydra.sweeper.params=null", "optimizer.lr=choice(5e-3,0.0)"]
    settings += ["hydra.sweeper.startup=2"]
    process = start(tmp_path, *settings, "hydra.sweeper.trials=5")
    wait_for(process, (tmp_path / "found" / "trial2" / "metrics.csv").is_file)
    process.kill()
    process.communicate()
    first = {n: (tmp_path / "found" / f"trial{n}" / "metrics.csv").stat().st_mtime_ns for n in (0, 1)}
    status, _, err = run(*settings, "hydra.sweeper.trials=5")
    assert status == 0, err
    assert first == {n: (tmp_path / "found" / f"trial{n}" / "metrics.csv").stat().st_mtime_ns for n in (0, 1)}
    reference = [word.replace("dir=found", "dir=whole") for word in settings]
    assert run(*reference, "hydra.sweeper.trials=5")[0] == 0
    assert table(tmp_path / "found") == table(tmp_path / "whole")
    assert {state for state, _ in table(tmp_path / "found").values()} <= {"done", "pruned"}
    best = OmegaConf.load(tmp_path / "found" / "best.yaml")
    assert "optimizer.lr=0.005" in best.overrides
    assert best.value > 0
    status, _, err = run(*shlex.split(best.command)[3:])
    assert status == 0, err
    assert figures(tmp_path / "found_best") == figures(tmp_path / best.folder)
    assert len(json.loads((tmp_path / "found" / "trials.json").read_text())["trials"]) == 5
