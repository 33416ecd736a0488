"""One job of a sweep as a process: its folder, its command line, and whether it needs a subprocess."""

from __future__ import annotations

from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import open_dict

from distilpose.cli.paths import CONFIG_DIR
from distilpose.errors import DistilPoseError
from distilpose.sweeps import jobs


@pytest.fixture
def composed(monkeypatch):
    """Compose a run or a job of a multirun, and set Hydra's configuration to it."""
    before = HydraConfig.instance().cfg

    def call(*overrides, mode=RunMode.RUN):
        with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
            cfg = compose("train", ["folder=run", *overrides], return_hydra_config=True)
        with open_dict(cfg):
            cfg.hydra.mode = mode
        HydraConfig.instance().set_config(cfg)
        return cfg

    yield call
    HydraConfig.instance().cfg = before


@pytest.mark.parametrize("choice", ["sweep=losses", "sweep=search", "launcher=local"])
def test_a_sweep_and_a_launcher_need_m(composed, choice):
    with pytest.raises(DistilPoseError, match=rf"{choice}.* -m "):
        jobs.check_folder(composed(choice))


def test_a_single_job_a_check_and_a_multirun_are_allowed(composed):
    jobs.check_folder(composed("sweep=losses", "hydra.run.dir=sweep_best"))  # the command in best.yaml
    jobs.check_folder(composed("sweep=losses", "check=true"))
    jobs.check_folder(composed("sweep=losses", "hydra.sweep.dir=s", mode=RunMode.MULTIRUN))
    jobs.check_folder(composed())


def test_processes_of_torchrun_need_one_folder(composed, monkeypatch):
    monkeypatch.setattr(jobs, "_has_cluster_launcher", lambda: True)
    with pytest.raises(DistilPoseError, match=r"hydra\.run\.dir"):
        jobs.check_folder(composed())
    jobs.check_folder(composed("hydra.run.dir=run"))
    jobs.check_folder(composed("resume=auto"))


@pytest.mark.parametrize(
    ("overrides", "mode", "wanted"),
    [
        (["trainer.devices=2", "trainer.strategy=ddp"], RunMode.MULTIRUN, True),
        (["trainer.devices=2", "trainer.strategy=ddp_fork"], RunMode.MULTIRUN, False),
        (["trainer.devices=1"], RunMode.MULTIRUN, False),
        (["trainer.devices=2", "trainer.strategy=ddp"], RunMode.RUN, False),
    ],
)
def test_which_jobs_need_a_subprocess(composed, overrides, mode, wanted):
    assert jobs.wants_processes(composed("trainer.accelerator=cpu", *overrides, mode=mode)) is wanted


def test_the_command_line_of_a_run_of_a_sweep(composed):
    hydra = composed("sweep=losses", "seed=3", "hydra.run.dir=x", "hydra.sweep.dir=s").hydra
    line = jobs.build_command_line(hydra, ["seed=3"], Path("a folder"), without=jobs.SWEEP_OVERRIDES)
    assert line == ["python", "-m", "distilpose.train", "seed=3", "hydra.run.dir='a folder'"]
    assert "hydra.sweep.dir=s" in jobs.build_command_line(hydra, [], Path("f"))


def test_a_process_exits_with_its_parent(monkeypatch):
    watched = []
    monkeypatch.setattr(jobs, "_watch", watched.append)
    jobs.exit_with_parent()
    assert watched == []
    monkeypatch.setenv(jobs.PARENT, "1")
    jobs.exit_with_parent()
    assert watched == [1]
    assert jobs.PARENT not in jobs.os.environ
