"""A grid: its jobs, its folder and its table, with stub trainings."""

from __future__ import annotations

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from distilpose.runs.locks import held
from distilpose.sweeps.grid import combinations

GRID = ["hydra.sweep.subdir=seed${seed}", "resume=auto"]


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != "multirun.yaml"}


def parse(*texts):
    return OverridesParser.create().parse_overrides(list(texts))


def test_combinations_are_every_value_with_every_other():
    assert combinations(parse("a=1,2", "b=x", "c=range(0,2)")) == [
        ["a=1", "b=x", "c=0"], ["a=1", "b=x", "c=1"], ["a=2", "b=x", "c=0"], ["a=2", "b=x", "c=1"],
    ]  # fmt: skip
    assert combinations(parse("a=1,2", "a=3")) == [["a=3"]]


def test_a_failed_job_does_not_stop_others_and_a_later_command_adds_rows(multirun, table, tmp_path):
    status, message = multirun(*GRID, "seed=-1,0,2")
    assert status == 1
    assert all(fact in message for fact in ("1 of 3 jobs failed", "sweep/seed-1", "seed=-1 must be", "resume=auto"))
    assert "Error executing job" not in message
    assert table() == {"seed-1": ("failed", "-"), "seed0": ("done", "0.0000"), "seed2": ("done", "2.0000")}
    best = OmegaConf.load(tmp_path / "sweep" / "best.yaml")
    assert (best.folder, best.value) == ("sweep/seed2", 2)
    assert best.command.startswith("python -m distilpose.train data=synthetic")
    assert best.command.endswith("seed=2 hydra.run.dir=sweep_best")
    assert (tmp_path / "sweep" / "trials.png").stat().st_size > 5000
    assert multirun(*GRID, "seed=-1,1", "hydra.sweeper.max_batch_size=1")[0] == 1
    assert list(table()) == ["seed0", "seed2", "seed-1", "seed1"]


def test_a_check_writes_no_table(multirun, tmp_path, monkeypatch):
    assert multirun("seed=-1,-2", "check=true")[0] == 1
    assert not (tmp_path / "sweep" / "trials.md").exists()


@pytest.mark.parametrize("resume", ["auto", "null"])
def test_jobs_that_share_a_folder(multirun, tmp_path, resume):
    settings = ["optimizer.lr=1e-3", "hydra.sweep.subdir=lr${optimizer.lr}", f"resume={resume}"]
    status, message = multirun("seed=0,1", *settings)
    assert status == 1
    assert all(fact in message for fact in ("seed=0", "seed=1", "'sweep/lr0.001'", "hydra.sweep.subdir"))
    assert contents(tmp_path / "sweep") == {}
    assert multirun("seed=0,0", "hydra.sweep.subdir=${seed}")[0] == 1


@pytest.mark.slow
def test_two_sweeps_in_one_folder_at_once(multirun, tmp_path):
    with held(tmp_path / "sweep" / "sweep.lock"):
        status, message = multirun(*GRID, "seed=0,1")
    assert status == 1
    assert "'sweep'" in message
    assert not (tmp_path / "sweep" / "seed0").exists()


def test_a_grid_over_runs_of_another_configuration(multirun, table, tmp_path):
    assert multirun(*GRID, "seed=0")[0] == 0
    before = contents(tmp_path / "sweep")
    status, message = multirun(*GRID, "seed=1,0", "trainer.max_epochs=2")
    assert status == 1
    assert all(fact in message for fact in ("sweep/seed0'", "trainer.max_epochs=1", "hydra.sweep.dir"))
    status, message = multirun(*GRID[:1], "seed=0,1")
    assert status == 1
    assert all(fact in message for fact in ("1 of 2", "sweep/seed0", "resume=auto"))
    assert contents(tmp_path / "sweep") == before


def test_a_damaged_run_is_left_to_its_own_job(multirun, table, tmp_path):
    (tmp_path / "sweep" / "seed1").mkdir(parents=True)
    (tmp_path / "sweep" / "seed1" / "config.yaml").write_text("{")
    assert multirun(*GRID, "seed=0,1")[0] == 0
    assert [state for state, _ in table().values()] == ["done", "done"]


@pytest.mark.parametrize(
    ("arguments", "facts"),
    [
        (["hydra.sweeper.max_batch_size=0"], ["hydra.sweeper.max_batch_size=0", "at least 1"]),
        (["sweep=search", "hydra.sweeper.trials=0"], ["hydra.sweeper.trials=0", "at least 1"]),
        (["sweep=search", "hydra.sweeper.warmup=-1"], ["hydra.sweeper.warmup=-1", "at least 0"]),
        (["sweep=search", "check=true"], ["check=true", "-m"]),
        (["launcher=slurm"], ["launcher=slurm", "srun", "launcher=local"]),
        (["callbacks.checkpoint.mode=min"], ["highest val/PCK", "min of val/PCK"]),
        (["sweep=search", "callbacks.checkpoint.monitor=val/PCK_box"], ["highest val/PCK", "max of val/PCK_box"]),
    ],
)
def test_mistakes(multirun, tmp_path, monkeypatch, arguments, facts):
    monkeypatch.setenv("PATH", "")
    if "launcher=slurm" in arguments:
        pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    status, message = multirun("seed=0,1", *arguments)
    assert status == 1
    assert all(fact in message for fact in facts), message
    assert not (tmp_path / "sweep").exists()
