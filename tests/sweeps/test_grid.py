"""What a sweep refuses before any of its jobs runs, and what it leaves in its folder."""

from __future__ import annotations

import pytest

TINY = [
    "data=custom", "data.batch_size=4", "data.num_workers=0", "augmentation=none", "loss=regression", "model=student_xs",
    "model.depth=1", "model.width=32", "model.heads=2", "model.input_size=[64,48]", "scheduler.warmup_steps=0",
    "trainer.accelerator=cpu", "trainer.max_epochs=1", "trainer.check_val_every_n_epoch=1", "logger=none",
    "~callbacks.pictures", "~callbacks.health", "~callbacks.details", "data.monitor=val/PCK", "hydra.sweep.dir=sweep",
]  # fmt: skip


def contents(folder):
    """Every file with its bytes, but for the copy of the command's own configuration."""
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != "multirun.yaml"}


@pytest.fixture
def sweep(run_train, tiny_coco):
    root = tiny_coco()

    def call(*arguments: str) -> tuple[int, str]:
        return run_train("-m", *TINY, f"data.root={root}", *arguments)

    return call


@pytest.mark.parametrize("name", ["losses", "search"])
def test_a_sweep_wants_m(run_train, tmp_path, name):
    status, told = run_train(*TINY, f"sweep={name}")
    assert status == 1
    assert f"error: sweep={name} is of many runs and wants -m: python -m distilpose.train -m sweep={name} …" in told
    assert contents(tmp_path) == {}


def test_a_command_of_its_own_for_a_job_wants_no_m(run_train, tiny_coco, tmp_path):
    """As a job on several devices is started, and as best.yaml has it."""
    status, told = run_train(*TINY, f"data.root={tiny_coco()}", "sweep=losses", "hydra.run.dir=sweep_best")
    assert status == 0, told
    assert (tmp_path / "sweep_best" / "metrics.json").is_file()


def test_a_check_leaves_nothing_and_a_search_for_the_rate_its_pictures(sweep, tmp_path):
    status, told = sweep("seed=0,1", "check=true")
    assert status == 0, told
    assert not (tmp_path / "sweep").exists()
    status, told = sweep("seed=0,1", "lr_find=true", "hydra.sweep.subdir=seed${seed}")
    assert status == 0, told
    assert {path.relative_to(tmp_path / "sweep").as_posix() for path in contents(tmp_path / "sweep")} == {
        f"seed{seed}/learning_rate.png" for seed in (0, 1)
    }


def test_no_job_at_a_time(sweep, tmp_path):
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    status, told = sweep("seed=0,1", "launcher=local", "hydra.launcher.n_jobs=0")
    assert status == 1
    assert "error: hydra.launcher.n_jobs=0 would run no job: expected how many run side by side" in told
    assert not (tmp_path / "sweep").exists()


@pytest.mark.parametrize("resume", ["auto", "null"])
def test_jobs_that_share_a_folder_are_refused(sweep, tmp_path, resume):
    status, told = sweep("seed=0,1", "optimizer.lr=1e-3", "hydra.sweep.subdir=lr${optimizer.lr}", f"resume={resume}")
    assert status == 1
    assert "error: The jobs of seed=0 and of seed=1 have one folder, 'sweep/lr0.001': give a hydra.sweep.subdir" in told
    assert contents(tmp_path / "sweep") == {}
    assert "The jobs of the same and of the same have one folder" in sweep("seed=0,0", "hydra.sweep.subdir=${seed}")[1]


def test_a_grid_over_runs_of_another_configuration_is_refused_as_a_whole(sweep, tmp_path):
    grid = ["hydra.sweep.subdir=seed${seed}", "resume=auto"]
    assert sweep(*grid, "seed=0")[0] == 0
    before = contents(tmp_path / "sweep")
    status, told = sweep(*grid, "seed=1,0", "trainer.max_epochs=2")
    assert status == 1
    assert "sweep/seed0' holds a run of another configuration (trainer.max_epochs=1)" in told
    assert contents(tmp_path / "sweep") == before
    # what is the launcher's has no say, a damaged run fails alone, and new values come into the same table
    (tmp_path / "sweep" / "seed1" / "checkpoints").mkdir(parents=True)
    last = tmp_path / "sweep" / "seed0" / "checkpoints" / "last.ckpt"
    (tmp_path / "sweep" / "seed1" / "checkpoints" / "last.ckpt").write_bytes(last.read_bytes())
    status, told = sweep(*grid, "seed=0,1,2", "hydra.sweeper.max_batch_size=2")
    assert "error: 1 of 3 jobs failed, sweep/seed1 (" in told
    rows = (tmp_path / "sweep" / "trials.md").read_text().splitlines()[2:5]
    assert [row.split(" | ")[1] for row in rows] == ["done", "failed", "done"]
