"""Mistakes of the user, failures of the machine and defects: what is said, and where the stack trace is."""

from __future__ import annotations

import errno
import os
import subprocess
import sys

import pytest
import torch
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch.utils.data import DataLoader, Dataset

from distilpose.cli import failures
from distilpose.cli.command import command
from distilpose.errors import DistilPoseError


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Run a task as the train command in tmp_path/run; return the exit status, what it prints, and its crash.log."""

    def call(task, *arguments: str) -> tuple[int, str, str]:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["train", "hydra.run.dir=run", *arguments])
        GlobalHydra.instance().clear()
        status, message = 0, ""
        try:
            command("train")(task)()
        except SystemExit as stop:
            status, message = (1, stop.code) if isinstance(stop.code, str) else (int(stop.code or 0), "")
        log = tmp_path / "run" / "crash.log"
        printed = capsys.readouterr()
        return status, printed.out + printed.err + message, log.read_text() if log.is_file() else ""

    yield call
    HydraConfig.instance().cfg = None


def raising(error):
    def task(cfg):
        raise error

    return task


@pytest.mark.parametrize(
    ("error", "facts"),
    [
        (FileNotFoundError(errno.ENOENT, "No such file or directory", "a.json"), ["a.json", "exists"]),
        (PermissionError(errno.EACCES, "Permission denied", "a.json"), ["a.json", "Permission denied"]),
        (OSError(errno.EROFS, "Read-only file system", "a.json"), ["a.json", "Read-only"]),
        (OSError(errno.EIO, "Input/output error", "a.json"), ["a.json", "Input/output error"]),
        (OSError(errno.ENOSPC, "No space left on device"), ["disk", "full", "free some space"]),
    ],
    ids=["missing", "forbidden", "read-only", "failing", "full"],
)
def test_a_mistake_is_one_sentence_without_a_trace(run, error, facts):
    status, printed, log = run(raising(error))
    assert (status, log) == (1, "")
    assert len(printed.splitlines()) == 1
    assert all(fact in printed for fact in facts), printed


@pytest.mark.parametrize(
    ("error", "facts"),
    [
        (ConnectionResetError(errno.ECONNRESET, "Connection reset by peer"), ["ConnectionResetError", "reset by peer"]),
        (OSError(errno.EMFILE, "Too many open files", "a.json"), ["oo many", "open", "ulimit -n", "num_workers"]),
        (
            RuntimeError(
                "Too many open files. Communication with the workers is no longer possible. Please increase …"
            ),
            ["oo many", "ulimit -n", "num_workers"],
        ),  # torch's own for its data workers
        (OSError("something of a library"), ["OSError", "something of a library"]),
        (TimeoutError("timed out"), ["TimeoutError", "timed out"]),
        (BrokenPipeError(errno.EPIPE, "Broken pipe"), ["BrokenPipeError"]),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else None,
)
def test_a_failure_of_the_system_keeps_its_trace(run, error, facts):
    """None of them is known to be the user's mistake, nor a dead training process."""
    status, printed, log = run(raising(error))
    assert status == 1
    assert len(printed.splitlines()) == 1
    assert all(fact in printed for fact in (*facts, "crash.log")), printed
    assert "process of this training" not in printed
    assert "Traceback" in log
    assert "in task" in log


def test_without_a_folder_the_trace_is_printed(run, tmp_path):
    with pytest.raises(ConnectionResetError):
        run(raising(ConnectionResetError(errno.ECONNRESET, "Connection reset by peer")), "hydra.run.dir=.")
    assert not (tmp_path / "crash.log").exists()


MESSAGES = {
    "cuda": torch.OutOfMemoryError(
        "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 8 GiB."
    ),
    "driver": RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be reported later."),
    "mps": RuntimeError("MPS backend out of memory (MPS allocated: 9.00 GB, other allocations: 1 GB)."),
    "numpy": MemoryError("Unable to allocate 9.00 TiB for an array"),
}


@pytest.mark.parametrize("kind", MESSAGES)
def test_exhausted_memory_names_the_settings_that_save_some(run, kind):
    status, printed, log = run(raising(MESSAGES[kind]), "data.batch_size=48", "trainer.accumulate_grad_batches=3")
    assert status == 1
    assert len(printed.splitlines()) == 1
    for fact in (
        "data.batch_size (now 48)", "trainer.accumulate_grad_batches (now 3)", "trainer.precision=bf16-mixed",
        "method.gradient_checkpointing=true", "crash.log",
    ):  # fmt: skip
        assert fact in printed, fact
    assert "Traceback" in log


def test_memory_that_is_really_exhausted_on_the_cpu(run):
    status, printed, log = run(lambda cfg: torch.empty(2**60, dtype=torch.uint8))
    assert status == 1
    assert "memory is exhausted" in printed
    assert "DefaultCPUAllocator" in log


def test_only_settings_that_are_not_in_use_are_named():
    cfg = OmegaConf.create(
        {
            "data": {"batch_size": 1},
            "trainer": {"accumulate_grad_batches": 1, "precision": "bf16-mixed"},
            "method": {"gradient_checkpointing": True},
        }
    )
    advice = failures.memory_advice(cfg)
    assert not any(word in advice for word in ("batch_size", "bf16", "gradient_checkpointing"))
    assert "model.input_size" in advice
    assert "lower data.val_batch_size (now 64)" in failures.memory_advice(
        OmegaConf.create({"data": {"val_batch_size": 64}})
    )
    assert "lower batch_size (now 32)" in failures.memory_advice(OmegaConf.create({"batch_size": 32}))


def rejecting(message="rejected"):
    raise ValueError(message)


def failing():
    raise ConnectionResetError(errno.ECONNRESET, "Connection reset by peer")


def exhausted():
    raise MESSAGES["cuda"]


def explained():
    raise DistilPoseError("the hub is unreachable: connect to it") from FileNotFoundError("no entry in the cache")


def exhausted_while_loading():
    raise DistilPoseError("does not take such crops") from MESSAGES["cuda"]


def test_a_failure_while_a_group_is_built_is_no_rejected_setting(run):
    """Hydra wraps every exception of a `_target_`: only a rejected argument is a mistake."""
    for function, facts, kept in (
        (rejecting, ["is rejected", "rejected"], False),
        (explained, ["error: the hub is unreachable: connect to it"], False),
        (failing, ["ConnectionResetError", "crash.log"], True),
        (exhausted, ["memory is exhausted", "crash.log"], True),
        (exhausted_while_loading, ["memory is exhausted", "crash.log"], True),
    ):
        target = f"{__name__}.{function.__name__}"
        status, printed, log = run(lambda cfg, target=target: instantiate({"_target_": target}))
        assert status == 1
        assert all(fact in printed for fact in facts), printed
        assert ("Traceback" in log) is kept


class Fatal(Dataset):
    def __init__(self, error):
        self.error = error

    def __len__(self):
        return 1

    def __getitem__(self, index):
        raise self.error


@pytest.mark.parametrize(
    ("error", "facts", "kept"),
    [
        (FileNotFoundError(errno.ENOENT, "No such file or directory", "gone.jpg"), ["gone.jpg"], False),
        (OSError(errno.EMFILE, "Too many open files", "a.jpg"), ["Too many open files"], True),
        (MemoryError("Unable to allocate 9.00 TiB"), ["memory is exhausted", "data.batch_size"], True),
        (DistilPoseError("Image a.jpg is cut off."), ["error: Image a.jpg is cut off."], False),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else None,
)
def test_errors_of_a_data_worker(run, error, facts, kept):
    status, printed, log = run(lambda cfg: list(DataLoader(Fatal(error), num_workers=1)))
    assert status == 1
    assert len(printed.splitlines()) == 1, printed
    assert all(fact in printed for fact in facts), printed
    assert ("Traceback" in log) is kept


@pytest.mark.slow
def test_a_broken_pipe_to_something_else_is_not_a_closed_standard_output(tmp_path):
    """A pipe to a worker breaks while standard output is open: the status must not be 0."""
    program = (
        "import os\nfrom distilpose.cli.command import command\n"
        "def task(cfg):\n    read, write = os.pipe(); os.close(read); os.write(write, b'x')\n"
        "command('train')(task)()"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, "hydra.run.dir=run"], cwd=tmp_path, capture_output=True, text=True, timeout=400
    )
    assert done.returncode == 1
    assert "Broken pipe" in done.stderr
    assert os.listdir(tmp_path / "run") == ["crash.log"]
