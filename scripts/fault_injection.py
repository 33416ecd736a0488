"""Defines the faults that `inject_faults.py` injects, and the command line of the runs."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from lightning import Callback

from distilpose.runs.checkpoints import newest_intact

EPOCHS, BATCHES, PERSONS = 3, 24, 8
STEPS = EPOCHS * BATCHES
INTERVAL = 0.6  # seconds between checkpoints within an epoch
DISK = 16  # MiB: enough for three checkpoints of 2 MiB and one that is being written
TRAIN = [
    "data=synthetic", f"data.num_train={PERSONS * BATCHES + 5}", "data.num_val=23", "data.max_persons=1", "data.image_size=64",
    "data.val_batch_size=4", "model=student_xs", "model.depth=1", "model.width=32", "model.heads=2", "model.input_size=[64,48]",
    "loss=regression", "scheduler=cosine", "resume=auto", "callbacks=ema", "callbacks.ema.decay=0.9",
    f"callbacks.interruption.minutes={INTERVAL / 60}", "callbacks.progress.refresh_rate=1", "~callbacks.pictures",
    "~callbacks.health", "+callbacks.probe._target_=fault_injection.Probe", f"trainer.max_epochs={EPOCHS}",
    "trainer.check_val_every_n_epoch=1", "trainer.num_sanity_val_steps=0", "trainer.accelerator=cpu",
    "trainer.log_every_n_steps=5", "hydra.run.dir=disk/run",
]  # fmt: skip
FORKED = [f"data.batch_size={PERSONS}"]
ONE = [sys.executable, "-m", "distilpose.train", *FORKED]
SHARED = [f"data.batch_size={PERSONS // 2}", "trainer.devices=2", "trainer.strategy=ddp"]
TWO = [sys.executable, "-m", "distilpose.train", *SHARED]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", *TWO[2:]]


class Probe(Callback):
    """Writes each step with its time into a file, and sets the images of step FAULTS_NAN to nan."""

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """Set the images to nan, if it is the step for it."""
        if os.environ.get("FAULTS_NAN") == str(trainer.global_step):
            batch.image.fill_(float("nan"))

    def on_train_batch_end(self, trainer: Any, *args: Any) -> None:
        """Write a line."""
        if trainer.is_global_zero:
            with open("steps.txt", "a") as file:
                file.write(f"{trainer.global_step} {time.monotonic()}\n")


Process = Any  # a subprocess.Popen, or a forked process with the same methods


class Fault:
    """A type of fault: it starts a run, injects the fault, and repairs its effects before the run resumes."""

    command: list[str] = FORKED
    arguments: tuple[str, ...] = ("data.num_workers=0", "logger=none")
    disk = False  # whether the run's folder is a separate disk
    waits = True  # whether it is injected at a random moment; otherwise by an environment variable

    def mount(self, place: Path) -> None:
        """Mount the disk of the run's folder."""
        run("mount", "-t", "tmpfs", "-o", f"size={DISK}m", "tmpfs", place / "disk")

    def environment(self, place: Path, draw: random.Random) -> dict[str, str]:
        """Environment variables of the run."""
        return {}

    def inject(self, process: Process, place: Path, draw: random.Random) -> None:
        """Inject the fault into the running process."""

    def repair(self, place: Path, draw: random.Random) -> None:
        """Repair the effects of the fault before the run resumes."""


class Signal(Fault):
    """Sends a signal to the started process, to its process group, or to one of its child processes."""

    def __init__(self, number: int, target: str = "parent", command: list[str] = FORKED, workers: int = 0):
        self.number, self.target, self.command = number, target, command
        self.arguments = (f"data.num_workers={workers}", "logger=none")

    def inject(self, process: Process, place: Path, draw: random.Random) -> None:
        """Inject the fault."""
        if self.target == "group":
            os.killpg(process.pid, self.number)
        else:
            os.kill(process.pid if self.target == "parent" else draw.choice(children(process.pid)), self.number)


class FullDisk(Fault):
    """The disk of the run's folder becomes full."""

    disk = True

    def inject(self, process: Process, place: Path, draw: random.Random) -> None:
        """Inject the fault."""
        with open(place / "disk" / "filler", "wb", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(1 << 16))
            except OSError:
                pass

    def repair(self, place: Path, draw: random.Random) -> None:
        """Repair the effects of the fault."""
        (place / "disk" / "filler").unlink()


class ReadOnly(Fault):
    """The kernel finds an error on the disk of the run's folder and remounts it read-only; unwritten data is lost."""

    disk = True

    def mount(self, place: Path) -> None:
        """Mount an ext4 file system in a file."""
        run("truncate", "-s", f"{DISK}M", place / "image")
        run("mkfs.ext4", "-q", place / "image")
        run("mount", "-o", "loop,errors=remount-ro", place / "image", place / "disk")

    def inject(self, process: Process, place: Path, draw: random.Random) -> None:
        """Inject the fault."""
        device = subprocess.check_output(["findmnt", "-no", "SOURCE", place / "disk"], text=True).strip()
        Path("/sys/fs/ext4", Path(device).name, "trigger_fs_error").write_text("injected")

    def repair(self, place: Path, draw: random.Random) -> None:
        """Repair the effects of the fault."""
        run("umount", place / "disk")
        # its status 1 means that it repaired the disk
        subprocess.run(["e2fsck", "-fy", place / "image"], capture_output=True)
        run("mount", "-o", "loop,errors=remount-ro", place / "image", place / "disk")


class Truncated(Signal):
    """The run is killed, and the newest checkpoint is truncated, as by a failing disk."""

    def repair(self, place: Path, draw: random.Random) -> None:
        """Repair the effects of the fault."""
        checkpoint = newest_intact(place / "disk" / "run")
        if checkpoint is not None:
            content = checkpoint.path.read_bytes()
            checkpoint.path.write_bytes(content[: draw.randrange(len(content))])


class ClockJump(Signal):
    """The clock jumps by a day, and the run is killed some time later."""

    def environment(self, place: Path, draw: random.Random) -> dict[str, str]:
        """Environment variables of the run."""
        return {"FAULTS_JUMP": str(draw.choice((-86400, 86400)))}

    def inject(self, process: Process, place: Path, draw: random.Random) -> None:
        """Inject the fault."""
        (place / "jumped").touch()
        time.sleep(draw.uniform(0, 0.3))
        super().inject(process, place, draw)


class NaNBatch(Fault):
    """The images of one step are nan, so its loss is nan."""

    waits = False

    def environment(self, place: Path, draw: random.Random) -> dict[str, str]:
        """Environment variables of the run."""
        return {"FAULTS_NAN": str(draw.randrange(STEPS))}


class Unreachable(Fault):
    """W&B's server refuses connections; nothing else happens."""

    waits = False
    arguments = ("data.num_workers=0", "logger=wandb", "logger.wandb.mode=online")

    def environment(self, place: Path, draw: random.Random) -> dict[str, str]:
        """Environment variables of the run."""
        return {"WANDB_BASE_URL": "http://127.0.0.1:9", "WANDB_API_KEY": "0" * 40}


KILL, TERM, USR1 = signal.SIGKILL, signal.SIGTERM, signal.SIGUSR1
FAULTS: dict[str, Fault] = {
    "SIGKILL": Signal(KILL),
    "SIGTERM": Signal(TERM),
    "SIGUSR1": Signal(USR1),
    "SIGTERM to all, data workers too": Signal(TERM, "group", ONE, workers=2),
    "full disk": FullDisk(),
    "read-only disk": ReadOnly(),
    "a data worker killed": Signal(KILL, "child", ONE, workers=2),
    "NaN in a batch": NaNBatch(),
    "W&B unreachable": Unreachable(),
    "truncated checkpoint": Truncated(KILL),
    "clock jump, then SIGKILL": ClockJump(KILL),
    "2 processes: SIGKILL to the first": Signal(KILL, command=TWO),
    "2 processes: SIGKILL to the second": Signal(KILL, "child", command=TWO),
    "2 processes: SIGTERM to the first": Signal(TERM, command=TWO),
    "2 processes: SIGUSR1 to the second": Signal(USR1, "child", command=TWO),
    "torchrun, 2 processes: SIGKILL to one": Signal(KILL, "child", command=TORCHRUN),
    "torchrun, 2 processes: SIGTERM to torchrun": Signal(TERM, command=TORCHRUN, workers=1),
}


def run(*command: str | Path) -> None:
    """Run a system command; raise an error if it fails."""
    subprocess.run(command, check=True, capture_output=True)


def children(process: int) -> list[int]:
    """IDs of the child processes of a process."""
    return [int(one) for one in Path(f"/proc/{process}/task/{process}/children").read_text().split()]


def running_in(place: Path) -> list[int]:
    """IDs of all processes with that working directory."""
    processes = []
    for one in Path("/proc").iterdir():
        try:
            if one.name.isdigit() and os.readlink(one / "cwd") == str(place):
                state = (one / "stat").read_text().rpartition(")")[2].split()[0]
                processes += [int(one.name)] if state != "Z" else []
        except OSError:
            pass
    return processes
