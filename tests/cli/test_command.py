"""The start and the errors of a command, tested with a small task instead of a training."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.utils import instantiate

from distilpose.cli.command import ProcessSetup, command
from distilpose.errors import DistilPoseError
from distilpose.runs.train_settings import TrainSettings


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Run a task as the train command; return the exit status, standard output and standard error."""

    def call(task, *arguments: str, declared=None) -> tuple[int, str, str]:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["train", *arguments])
        GlobalHydra.instance().clear()
        status, message = 0, ""
        try:
            command("train", declared)(task)()
        except SystemExit as stop:  # if the code is a text, the interpreter prints it and the status is 1
            status, message = (1, stop.code) if isinstance(stop.code, str) else (int(stop.code or 0), "")
        printed = capsys.readouterr()
        return status, printed.out, printed.err + message

    yield call
    HydraConfig.instance().cfg = None


def raising(error):
    def task(cfg):
        raise error

    return task


@pytest.mark.slow
def test_a_closed_pipe_is_not_an_error(tmp_path):
    program = (
        "from distilpose.cli.command import command\n"
        "def task(cfg):\n    for line in range(100000): print(line)\n"
        "command('report')(task)()"
    )
    writer = subprocess.Popen(
        [sys.executable, "-c", program], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert writer.stdout.readline() == "0\n"
    writer.stdout.close()
    assert writer.stderr.read() == ""
    assert writer.wait(timeout=60) == 0


def test_an_interruption_is_one_line(run):
    assert run(raising(KeyboardInterrupt())) == (130, "", "Interrupted.\n")


def test_a_task_gets_its_configuration(run, tmp_path):
    seen = {}

    def task(cfg):
        seen.update(epochs=cfg.trainer.max_epochs, folder=cfg.folder)

    assert run(task, "trainer.max_epochs=3", "hydra.run.dir=here") == (0, "", "")
    assert seen == {"epochs": 3, "folder": str(tmp_path / "here")}


@pytest.mark.parametrize(
    ("arguments", "facts"),
    [
        (["trainer.max_epoch=3"], ["trainer.max_epoch ", "trainer.max_epochs?"]),
        (["trainr.max_epochs=3"], ["trainr ", "trainer?"]),
        (["experiment=demo_student", "data.num_trian=3"], ["data.num_trian ", "data.num_train"]),
        (["zzzz=3"], ["'zzzz'", "+zzzz=3"]),
        (["seed.x=3"], ["'seed.x'"]),
        (["model=student_m"], ["model=student_m", "student_l", "student_s"]),
        (["callbacks=[ema,nothing]"], ["callbacks=nothing", "default, diagnosis, early_stopping"]),
        (["hydra/launcher=nothing"], ["hydra/launcher=nothing", "basic"]),
        (["--config-name", "nothing"], ["'nothing'"]),
        (["trainer.max_epochs=[3"], ["[3"]),
        (["hydra.run.dir=file/run"], ["file/run"]),
        (["logger=null"], ["logger=null", "none, tensorboard"]),
        (["model=student_s", "loss=5"], ["loss=5", "distilpose"]),
        (["hydra.run.dir=null"], ["hydra.run.dir=null", "not Optional"]),
    ],
    ids=lambda value: value[-1] if len(value) == 1 else None,
)
def test_user_errors_before_the_task_are_one_line(run, tmp_path, arguments, facts):
    (tmp_path / "file").write_text("no folder")
    status, _, message = run(raising(AssertionError("the task ran")), *arguments)
    assert status == 1
    assert message.startswith("error: ")
    assert all(fact in message for fact in facts), message
    assert len(message.splitlines()) == 1
    assert "provider" not in message  # a word of Hydra's search path


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (DistilPoseError("lr=-1 must be positive."), "error: lr=-1 must be positive."),
        (FileNotFoundError(2, "No such file or directory", "absent.json"), "'absent.json'"),
        (OSError(28, "No space left on device"), "error: The disk is full"),
    ],
    ids=["DistilPoseError", "file", "system"],
)
def test_user_errors_in_the_task_are_one_line(run, error, message):
    status, _, printed = run(raising(error))
    assert status == 1
    assert message in printed
    assert len(printed.splitlines()) == 1


def test_a_user_error_removes_an_empty_folder_and_no_other(run, tmp_path):
    for folder in ("empty", "runs/name/time"):
        assert run(raising(DistilPoseError("no")), f"hydra.run.dir={folder}")[0] == 1
        assert list(tmp_path.iterdir()) == []

    def task(cfg):
        (Path(cfg.folder) / "metrics.csv").write_text("epoch\n")
        raise DistilPoseError("no")

    assert run(task, "hydra.run.dir=run")[0] == 1
    assert [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.csv")] == ["run/metrics.csv"]


def test_a_user_error_does_not_remove_the_current_folder(run, tmp_path):
    assert run(raising(DistilPoseError("no")), "hydra.run.dir=.")[0] == 1
    assert tmp_path.is_dir()


def test_our_message_is_shown_instead_of_hydras(run):
    def task(cfg):
        instantiate({"_target_": "distilpose.create_model", "name": "student_xs", "input_size": [65, 48]})

    status, _, message = run(task)
    assert status == 1
    assert message.startswith("error: input_size 65 x 48")
    assert len(message.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "facts"),
    [
        (["trainer.max_epochs=0"], ["trainer.max_epochs=0", "at least 1"]),
        (["+trainer.max_epoch=3"], ["trainer.max_epoch", "Trainer", "did you mean trainer.max_epochs"]),
        (["experiment=demo_student", "data=coco"], ["data.num_train", "CocoDataModule", "~data.num_train"]),
    ],
)
def test_settings_are_validated_before_the_task(run, tmp_path, arguments, facts):
    status, _, message = run(
        raising(AssertionError("the task ran")), "hydra.run.dir=run", *arguments, declared=TrainSettings
    )
    assert status == 1
    assert len(message.splitlines()) == 1
    assert all(fact in message for fact in facts)
    assert list(tmp_path.iterdir()) == []


def test_help_lists_settings_with_allowed_values(run):
    status, out, err = run(raising(AssertionError("the task ran")), "--help", "optimizer=adamw", declared=TrainSettings)
    assert (status, err) == (0, "")
    for name, facts in {
        "trainer.max_epochs": ["300", "a whole number of at least 1"],
        "optimizer.weight_decay": ["0.05", "a number of at least 0"],
        "weights_kind": ["averaged or raw"],
        "check": ["false", "true or false"],
    }.items():
        (line,) = (line for line in out.splitlines() if line.split()[:1] == [name] and ":" not in line.split()[0])
        assert all(fact in line for fact in facts), line


def test_a_defect_keeps_its_trace_in_the_folder_of_the_run_too(run, tmp_path):
    with pytest.raises(ZeroDivisionError):
        run(lambda cfg: 1 / 0, "hydra.run.dir=run")
    text = (tmp_path / "run" / "crash.log").read_text()
    assert "Traceback" in text
    assert "ZeroDivisionError" in text
    with pytest.raises(ZeroDivisionError):  # the current folder is not the folder of a run
        run(lambda cfg: 1 / 0, "hydra.run.dir=.")
    assert not (tmp_path / "crash.log").exists()


def test_a_job_prepares_the_process_that_unpickles_it():
    import cloudpickle
    from omegaconf import OmegaConf

    content = cloudpickle.dumps(ProcessSetup())
    OmegaConf.clear_resolver("run_directory")
    cloudpickle.loads(content)
    assert OmegaConf.has_resolver("run_directory")


def test_asking_for_a_trace_gives_one(run, monkeypatch):
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    with pytest.raises(DistilPoseError, match="bad"):
        run(raising(DistilPoseError("bad")))


def test_the_environment_is_restored(run, monkeypatch):
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
    seen = []
    run(lambda cfg: seen.append(os.environ["HYDRA_FULL_ERROR"]))
    run(raising(DistilPoseError("bad")))
    assert "HYDRA_FULL_ERROR" not in os.environ
    assert seen == ["0"]  # child processes of the task, such as the other processes of a training, read it


def test_a_failed_job_does_not_stop_a_multirun(run, tmp_path):
    seen = []

    def task(cfg):
        seen.append(cfg.seed)
        if cfg.seed == 1:
            raise DistilPoseError("seed=1 is bad: take another.")

    status, _, printed = run(task, "-m", "seed=1,2", "hydra.sweep.dir=sweep")
    assert seen == [1, 2]
    assert status == 1
    when_it_failed, at_the_end = printed.splitlines()
    assert when_it_failed == "error: seed=1 is bad: take another."
    assert all(fact in at_the_end for fact in ("1 of 2", "sweep/0_student_s", "seed=1 is bad", "resume=auto"))
    assert sorted(path.name for path in (tmp_path / "sweep").iterdir() if path.is_dir()) == [
        "0_student_s",
        "1_student_s",
    ]
