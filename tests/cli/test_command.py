"""How commands start and fail, by a small task in place of a training."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hydra.core.global_hydra import GlobalHydra
from hydra.utils import instantiate

from distilpose.cli.command import command
from distilpose.errors import DistilPoseError
from distilpose.runs import resume  # noqa: F401  (the train configuration needs its resolver)


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Runs a task as the train command with the given arguments: exit status, standard output, standard error."""

    def call(task, *arguments: str) -> tuple[int, str, str]:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["train", *arguments])
        GlobalHydra.instance().clear()
        status, said = 0, ""
        try:
            command("train")(task)()
        except SystemExit as stop:  # with a text, which the interpreter prints on its way out, the status is 1
            status, said = (1, stop.code) if isinstance(stop.code, str) else (int(stop.code or 0), "")
        told = capsys.readouterr()
        return status, told.out, told.err + said

    return call


def raising(error):
    def task(cfg):
        raise error

    return task


def test_a_reader_who_has_enough_is_no_mistake(tmp_path):
    program = (
        "from distilpose.cli.command import command\n"
        "def task(cfg):\n    for line in range(100000): print(line)\n"
        "command('report')(task)()"
    )
    talker = subprocess.Popen(
        [sys.executable, "-c", program], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert talker.stdout.readline() == "0\n"
    talker.stdout.close()
    assert talker.stderr.read() == ""
    assert talker.wait(timeout=60) == 0


def test_one_that_is_interrupted_says_so(run):
    assert run(raising(KeyboardInterrupt())) == (130, "", "Interrupted.\n")


def test_a_task_gets_its_configuration(run, tmp_path):
    seen = {}

    def task(cfg):
        seen.update(epochs=cfg.trainer.max_epochs, folder=cfg.folder)

    assert run(task, "trainer.max_epochs=3", "hydra.run.dir=here") == (0, "", "")
    assert seen == {"epochs": 3, "folder": str(tmp_path / "here")}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["trainer.max_epoch=3"], "error: trainer.max_epoch is not known: did you mean trainer.max_epochs?"),
        (["trainr.max_epochs=3"], "error: trainr is not known: did you mean trainer?"),
        (
            ["experiment=demo_student", "data.num_trian=3"],
            "error: data.num_trian is not known: did you mean data.num_train or",
        ),
        (["zzzz=3"], "error: Could not override 'zzzz'. To append to your config use +zzzz=3"),
        (["seed.x=3"], "error: Could not override 'seed.x'."),
        (["model=student_m"], "error: model=student_m is not known: expected one of student_l, student_s, "),
        (
            ["callbacks=[ema,nothing]"],
            "error: callbacks=nothing is not known: expected one of default, diagnosis, early_stopping",
        ),
        (["hydra/launcher=nothing"], "error: hydra/launcher=nothing is not known: expected one of basic"),
        (["--config-name", "nothing"], "error: Cannot find primary config 'nothing'."),
        (["trainer.max_epochs=[3"], "error: "),
        (["hydra.run.dir=file/run"], "error: Cannot use "),
        (["logger=null"], "error: A group of settings takes the name of one of its files, which null is not"),
    ],
    ids=[
        "misspelt name",
        "misspelt group",
        "of a choice",
        "like nothing",
        "below a value",
        "unknown choice",
        "in a list",
        "of Hydra",
        "no command",
        "syntax",
        "unwritable folder",
        "null as a choice",
    ],
)
def test_mistakes_before_the_task_are_one_line(run, tmp_path, arguments, message):
    (tmp_path / "file").write_text("no folder")

    status, _, told = run(raising(AssertionError("the task ran")), *arguments)
    assert status == 1
    assert told.startswith(message)
    assert len(told.splitlines()) == 1
    assert "provider" not in told


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (DistilPoseError("lr=-1 must be positive: give another."), "error: lr=-1 must be positive: give another."),
        (
            FileNotFoundError(2, "No such file or directory", "absent.json"),
            "error: Cannot use 'absent.json': No such file",
        ),
        (OSError("disk full"), "error: disk full"),
    ],
    ids=["ours", "file", "system"],
)
def test_mistakes_in_the_task_are_one_line(run, error, message):
    status, _, told = run(raising(error))
    assert status == 1
    assert told.startswith(message)
    assert len(told.splitlines()) == 1


def test_a_mistake_leaves_no_empty_folder_but_all_that_was_written(run, tmp_path):
    assert run(raising(DistilPoseError("no")), "hydra.run.dir=empty")[0] == 1
    assert list(tmp_path.iterdir()) == []

    def task(cfg):
        (Path(cfg.folder) / "metrics.csv").write_text("epoch\n")
        raise DistilPoseError("no")

    assert run(task, "hydra.run.dir=begun")[0] == 1
    assert [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.csv")] == ["begun/metrics.csv"]


def test_a_mistake_leaves_the_current_folder_where_it_is(run, tmp_path):
    assert run(raising(DistilPoseError("no")), "hydra.run.dir=.")[0] == 1
    assert tmp_path.is_dir()


def test_our_sentence_is_found_beneath_hydras(run):
    def task(cfg):
        instantiate({"_target_": "distilpose.create_model", "name": "student_xs", "input_size": [65, 48]})

    status, _, told = run(task)
    assert status == 1
    assert told.startswith("error: input_size 65 x 48")
    assert len(told.splitlines()) == 1


def test_a_setting_of_another_choice_is_told(run):
    status, _, told = run(lambda cfg: instantiate(cfg.data), "experiment=demo_student", "data=coco")
    assert status == 1
    assert told.startswith(
        "error: data.num_train is no setting of CocoDataModule: take it out by ~data.num_train, or choose"
    )
    assert len(told.splitlines()) == 1


def test_a_defect_of_ours_keeps_its_trace(run):
    with pytest.raises(ZeroDivisionError):
        run(lambda cfg: 1 / 0)


def test_asking_for_a_trace_gives_one(run, monkeypatch):
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    with pytest.raises(DistilPoseError, match="bad"):
        run(raising(DistilPoseError("bad")))


def test_the_environment_is_left_as_found(run, monkeypatch):
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
    seen = []
    run(lambda cfg: seen.append(os.environ["HYDRA_FULL_ERROR"]))
    run(raising(DistilPoseError("bad")))
    assert "HYDRA_FULL_ERROR" not in os.environ
    assert seen == ["0"]  # for commands started by the task, such as the other processes of a training


def test_a_failed_job_does_not_stop_a_multirun(run, tmp_path):
    seen = []

    def task(cfg):
        seen.append(cfg.seed)
        if cfg.seed == 1:
            raise DistilPoseError("seed=1 is bad: take another.")

    status, _, told = run(task, "-m", "seed=1,2", "hydra.sweep.dir=sweep")
    assert seen == [1, 2]
    assert status == 1
    assert told.splitlines() == [
        "error: seed=1 is bad: take another.",  # when it failed
        "error: 1 of 2 jobs failed, sweep/0_student_s (seed=1 is bad: take another): mend what is told, and the same command "
        "with resume=auto tries them again.",
    ]
    assert sorted(path.name for path in (tmp_path / "sweep").iterdir() if path.is_dir()) == [
        "0_student_s",
        "1_student_s",
    ]
