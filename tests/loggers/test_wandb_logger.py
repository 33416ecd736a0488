from __future__ import annotations

import os
import socket
import subprocess
import sys
from types import SimpleNamespace

import pytest
import wandb
from lightning.pytorch.loggers import WandbLogger
from trackers import tracker
from wandb_offline import read_logged

from distilpose.callbacks import make_wandb_logger
from distilpose.loggers import wandb_logger as wandb_run
from distilpose.loggers.wandb_logger import finish_wandb


@pytest.fixture
def chosen(monkeypatch, tmp_path):
    """A function that returns the mode of a logger, for a machine with or without account and server."""
    monkeypatch.delenv("WANDB_MODE", raising=False)

    def choose(mode="auto", account=False, answers=False):
        options = {}
        monkeypatch.setattr(wandb_run, "_has_account", lambda url: account)
        monkeypatch.setattr(wandb_run, "accepts_connections", lambda url, timeout=2.0: answers)
        monkeypatch.setattr(wandb_run, "ResilientWandbLogger", lambda **arguments: options.update(arguments))
        make_wandb_logger("project", "name", str(tmp_path / "run"), mode)
        return options["mode"]

    return choose


@pytest.mark.parametrize(
    ("account", "answers", "expected"),
    [(True, True, "online"), (True, False, "offline"), (False, True, "offline"), (False, False, "offline")],
)
def test_online_only_with_an_account_and_a_server(chosen, account, answers, expected):
    assert chosen(account=account, answers=answers) == expected


@pytest.mark.parametrize("mode", ["online", "offline", "disabled"])
def test_an_explicit_mode_is_used(chosen, monkeypatch, mode):
    assert chosen(mode, account=True, answers=True) == mode
    monkeypatch.setenv("WANDB_MODE", mode)
    assert chosen("auto", account=True, answers=True) == mode


def test_online_without_an_answer_is_offline(chosen, monkeypatch):
    warnings = []
    monkeypatch.setattr(wandb_run.log, "warning", warnings.append)
    assert chosen("online", account=True, answers=False) == "offline"
    assert all(fact in warnings[0] for fact in ("http", "offline", "wandb sync"))


@pytest.mark.parametrize("sweep", ["rates", ""])
def test_the_jobs_of_a_sweep_are_one_group(monkeypatch, tmp_path, sweep):
    monkeypatch.setenv(wandb_run.SWEEP, sweep)
    settings = {}
    monkeypatch.setattr(wandb_run, "ResilientWandbLogger", lambda **options: settings.update(options))
    make_wandb_logger("project", "name", str(tmp_path), "offline")
    grouped = {name: settings[name] for name in ("group", "job_type", "tags") if name in settings}
    assert grouped == ({"group": "rates", "job_type": "sweep", "tags": ["rates"]} if sweep else {})


def test_an_account_is_a_key_in_the_environment_or_the_netrc_file(monkeypatch, tmp_path):
    url = "https://wandb.example"
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    assert not wandb_run._has_account(url)
    (tmp_path / ".netrc").write_text("machine wandb.example login user password none\n")
    (tmp_path / ".netrc").chmod(0o600)
    assert wandb_run._has_account(url)
    assert not wandb_run._has_account("https://elsewhere.example")
    monkeypatch.setenv("WANDB_API_KEY", "x" * 40)
    assert wandb_run._has_account("https://elsewhere.example")


def test_a_logger_that_is_rejected_is_built_again_for_offline_mode(monkeypatch, tmp_path):
    modes = []

    def init(mode, **_):
        modes.append(mode)
        if mode == "online":
            raise wandb.errors.CommError("401")
        return SimpleNamespace(id="x")

    monkeypatch.setattr(wandb, "run", None)
    monkeypatch.setattr(wandb, "init", init)
    logger = wandb_run.ResilientWandbLogger(project="p", name="n", save_dir=str(tmp_path), mode="online")
    assert logger.experiment.id == "x"
    assert (modes, logger.mode) == (["online", "offline"], "offline")


@pytest.mark.parametrize(("kind", "codes"), [("main", []), ("forked", [0]), ("spawned", [])])
def test_only_a_forked_process_closes_the_run_itself(monkeypatch, tmp_path, kind, codes):
    closed = []
    monkeypatch.setattr(wandb, "run", None)
    monkeypatch.setattr(wandb, "init", lambda **_: SimpleNamespace(id="x", name="n"))
    logger = wandb_run.ResilientWandbLogger(project="p", name="n", save_dir=str(tmp_path), mode="disabled")
    if kind == "spawned":
        state, logger = logger.__getstate__(), wandb_run.ResilientWandbLogger.__new__(wandb_run.ResilientWandbLogger)
        vars(logger).update(state)
    monkeypatch.setattr(wandb, "run", object())
    monkeypatch.setattr(wandb_run, "_finish", closed.append)
    if kind != "main":
        monkeypatch.setattr(os, "getpid", lambda: -1)
    logger.finalize("success")
    assert closed == codes


def test_whether_a_server_answers():
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        assert wandb_run.accepts_connections(url, timeout=1)
    assert not wandb_run.accepts_connections(url, timeout=1)


@pytest.mark.parametrize("fails", [False, True])
def test_the_run_is_closed_with_an_exit_code(monkeypatch, fails):
    codes = []
    monkeypatch.setattr(wandb, "run", object())
    monkeypatch.setattr(wandb, "finish", lambda exit_code: codes.append(exit_code))
    trainer = SimpleNamespace(loggers=[WandbLogger.__new__(WandbLogger)])
    try:
        with finish_wandb(trainer):
            assert not fails, "training failed"
    except AssertionError:
        assert fails
    assert codes == [int(fails)]


def test_a_run_of_another_logger_stays_open(monkeypatch):
    codes = []
    monkeypatch.setattr(wandb, "run", object())
    monkeypatch.setattr(wandb, "finish", lambda exit_code: codes.append(exit_code))
    with finish_wandb(SimpleNamespace(loggers=[])):
        pass
    assert codes == []


@pytest.mark.slow
def test_two_runs_in_one_process_have_separate_folders(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    for name in ("a", "b"):
        logger = make_wandb_logger("project", name, str(tmp_path / name))
        with finish_wandb(SimpleNamespace(loggers=[logger])):
            logger.log_metrics({"loss": 1.0}, step=0)
        assert wandb.run is None
        (run,) = (tmp_path / name / "wandb").glob("offline-run-*")
        assert list(run.glob("*.wandb"))


def test_a_server_behind_a_proxy_answers_where_the_proxy_does(monkeypatch):
    with socket.socket() as proxy:
        proxy.bind(("127.0.0.1", 0))
        proxy.listen()
        for name in ("http_proxy", "https_proxy", "no_proxy"):
            monkeypatch.delenv(name, raising=False)
            monkeypatch.delenv(name.upper(), raising=False)
        monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{proxy.getsockname()[1]}")
        assert wandb_run.accepts_connections("https://wandb.invalid")
        monkeypatch.setenv("no_proxy", "wandb.invalid")
        assert not wandb_run.accepts_connections("https://wandb.invalid")


@pytest.fixture
def wandb_at(tmp_path):
    """A function that runs a program with a W&B server in its environment, and returns its output."""

    def call(address: str, program: str) -> str:
        keys = {"WANDB_BASE_URL": address, "WANDB_API_KEY": "0" * 40, "HOME": str(tmp_path), "WANDB_MODE": "online"}
        environment = {**{name: value for name, value in os.environ.items() if "WANDB" not in name}, **keys}
        done = subprocess.run(
            [sys.executable, "-c", LOGGER + program],
            env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=400, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout + done.stderr

    return call


LOGGER = """
from types import SimpleNamespace
from distilpose.callbacks import finish_wandb, make_wandb_logger
from distilpose.loggers import wandb_logger as wandb_run
wandb_run.FINISH_TIMEOUT = 2
logger = make_wandb_logger("distilpose", "run", "run")
trainer = SimpleNamespace(loggers=[logger])
"""


@pytest.mark.slow
def test_a_run_that_the_server_rejects_is_offline(wandb_at, tmp_path):
    with tracker(status=401) as server:
        output = wandb_at(server.address, "with finish_wandb(trainer):\n    logger.log_metrics({'loss': 1.0}, step=0)")
    assert server.sent
    assert all(fact in output for fact in ("W&B rejects the run", "401", "wandb sync"))
    (run,) = (tmp_path / "run" / "wandb").glob("offline-run-*/*.wandb")
    assert "loss" in read_logged(run).history


@pytest.mark.slow
def test_a_lost_server_does_not_stop_a_training(wandb_at, tmp_path):
    program = (
        "import urllib.request\n"
        "with finish_wandb(trainer):\n"
        "    logger.log_metrics({'before': 1.0}, step=0)\n"
        "    urllib.request.urlopen('ADDRESS/gone')\n"
        "    for step in range(3):\n"
        "        logger.log_table('table', ['number'], [[1]], step=step)\n"
        "    logger.log_metrics({'after': 2.0}, step=3)\n"
    )
    with tracker() as server:
        output = wandb_at(server.address, program.replace("ADDRESS", server.address))
    assert output.count("W&B failed to log table") == 1
    assert "wandb sync" in output
    (run,) = (tmp_path / "run" / "wandb").glob("run-*/*.wandb")
    assert {"before", "after"} <= set(read_logged(run).history)


def test_the_server_is_the_one_that_wandb_uses(monkeypatch, tmp_path):
    monkeypatch.delenv("WANDB_BASE_URL", raising=False)
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path))
    public = wandb_run.server_url()
    assert public.startswith("https://")
    (tmp_path / "settings").write_text("[default]\nbase_url = https://wandb.private.example\n")
    assert wandb_run.server_url() == "https://wandb.private.example"
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    assert wandb_run.server_url() == "http://127.0.0.1:9"
