"""Starts training runs for fault injection, waits until they end, and reads their files."""

from __future__ import annotations

import multiprocessing
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
from fault_injection import FORKED, TRAIN, Fault, Process, running_in

from distilpose.callbacks.metrics_table import read_table

os.environ["OMP_NUM_THREADS"] = "1"
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["distilpose.train"])
OUTPUT = "output.txt"


class Forked(FORKS.Process):  # type: ignore[name-defined,misc]
    """The training command in a forked process that has imported its modules already, with the methods of a subprocess."""

    def poll(self) -> int | None:
        """Exit status, negative for a signal; None while it runs."""
        return self.exitcode

    def wait(self) -> int:
        """Wait until it ends; return its exit status."""
        self.join()
        return self.exitcode


def train(place: Path, arguments: list[str], environment: dict[str, str]) -> None:
    """Run the train command in a forked process."""
    os.setsid()
    os.chdir(place)
    os.environ.update(environment)
    output = os.open(OUTPUT, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(output, 1)
    os.dup2(output, 2)
    if jump := int(environment.get("FAULTS_JUMP", 0)):
        now = time.time
        time.time = lambda: now() + (jump if os.path.exists(place / "jumped") else 0)
    sys.argv = ["train", *arguments]
    from distilpose.train import main

    main()


def start(place: Path, fault: Fault, **environment: str) -> Process:
    """Start the training as a separate process group; its output goes into a file outside the run's folder."""
    path = os.pathsep.join([str(Path(__file__).resolve().parent), os.environ.get("PYTHONPATH", "")])
    variables = {"WANDB_SILENT": "true", "PYTHONPATH": path, **environment}
    arguments = [
        *TRAIN,
        *fault.arguments,
        f"data.folder={place.parent / 'data'}",
    ]  # the images are drawn once for all cases
    if fault.command is FORKED:
        process = Forked(target=train, args=(place, [*FORKED, *arguments], variables))
        process.start()
        return process
    options: Any = {"cwd": place, "env": os.environ | variables, "start_new_session": True}
    with open(place / OUTPUT, "wb") as output:
        return subprocess.Popen([*fault.command, *arguments], stdout=output, stderr=output, **options)


def ending(folder: Path) -> tuple[list[dict[str, float]], dict[str, Any]]:
    """Metrics (without times) and checkpoint (without loop counters and callbacks) at the end of a run."""
    rows = [{k: v for k, v in row.items() if k != "seconds"} for row in read_table(folder / "metrics.csv")]
    content = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    return rows, {key: value for key, value in content.items() if key not in ("loops", "callbacks")}


def same(one: Any, other: Any) -> bool:
    """Whether two nested containers of tensors are bit-identical."""
    if torch.is_tensor(one):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


def steps_done(place: Path) -> dict[int, float]:
    """The time of each step that a run has finished."""
    text = (place / "steps.txt").read_text() if (place / "steps.txt").exists() else ""
    lines = [line.split() for line in text.splitlines(keepends=True) if "\n" in line]
    return {int(step): float(seconds) for step, seconds in lines}


def last_message(place: Path) -> str:
    """The last message of a run, without progress bars."""
    text = re.sub(r"[^\r\n]*?(it/s|s/it)\]", "\n", (place / OUTPUT).read_text(errors="replace"))
    lines = [line.strip("\x1b[A ") for line in re.split(r"[\r\n]", text) if line.strip("\x1b[A ")]
    messages = [line for line in lines if line.startswith(("error: ", "Stopped by "))]  # torchrun prints more after it
    return (messages or lines or [""])[-1]


def wait_for_all(process: Process, place: Path, seconds: float) -> tuple[int, int]:
    """Wait until all processes of a run have ended; return the exit status, and how many processes had to be killed."""
    deadline = time.monotonic() + seconds
    while (process.poll() is None or running_in(place)) and time.monotonic() < deadline:
        time.sleep(0.02)
    remaining = running_in(place)
    for number in remaining:
        os.kill(number, signal.SIGKILL)
    return process.wait(), len(remaining)
