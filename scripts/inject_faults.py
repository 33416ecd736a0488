"""What a training loses by each kind of fault: real runs, hit at random moments, resumed, compared with one let alone.

    python scripts/inject_faults.py --times 10 --output faults

prints a table and writes it, with every case, into the output folder. A full disk is a small tmpfs, which takes root.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from rich.progress import track

from distilpose.callbacks.metrics_table import read_table
from distilpose.checkpoints import newest_intact

EPOCHS, BATCHES = 6, 12
TRAIN = [
    "data=synthetic", f"data.num_train={8 * BATCHES}", "data.num_val=16", "data.max_persons=1", "data.image_size=96",
    "data.batch_size=8", "model=student_xs", "loss=regression", "scheduler=cosine", "logger=none", "resume=auto",
    f"trainer.max_epochs={EPOCHS}", "trainer.check_val_every_n_epoch=2", "trainer.accelerator=cpu",
    "trainer.num_sanity_val_steps=0", "callbacks=ema", "callbacks.ema.decay=0.9", "callbacks.interruption.minutes=0.02",
    "~callbacks.pictures", "~callbacks.health",
]  # fmt: skip
# a clock that jumps by a day, now forth, now back
JUMPING = """
import time, random
_real, _began, _at = time.time, time.time(), random.Random({seed}).uniform(1, {latest})
time.time = lambda: _real() + (0 if _real() - _began < _at else random.Random({seed}).choice((-86400, 86400)))
"""


class Fault:
    """One kind of fault: how a run is started, what is done to it at a random moment, and what before it is resumed."""

    arguments: tuple[str, ...] = ("data.num_workers=0",)
    expected: tuple[int, ...] = (0,)

    def environment(self, draw: random.Random, place: Path, latest: float) -> dict[str, str]:
        """What the process finds in its environment."""
        return {}

    def strike(self, process: subprocess.Popen, folder: Path, draw: random.Random) -> None:
        """At the random moment."""

    def mend(self, folder: Path, draw: random.Random) -> None:
        """Before resuming."""


class Signal(Fault):
    """A signal to the training's process."""

    def __init__(self, number: int):
        self.number = number
        self.expected = (-number,) if number == signal.SIGKILL else (128 + number,)

    def strike(self, process: subprocess.Popen, folder: Path, draw: random.Random) -> None:
        """Hit it."""
        process.send_signal(self.number)


class DeadWorker(Fault):
    """One of the loading processes is killed."""

    arguments = ("data.num_workers=2",)
    expected = (1,)

    def strike(self, process: subprocess.Popen, folder: Path, draw: random.Random) -> None:
        """Hit it."""
        for _ in range(200):
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
            if children:
                os.kill(int(draw.choice(children)), signal.SIGKILL)
                return
            time.sleep(0.02)


class FullDisk(Fault):
    """The disk of the run's folder is filled, and emptied before resuming."""

    expected = (1,)

    def strike(self, process: subprocess.Popen, folder: Path, draw: random.Random) -> None:
        """Hit it."""
        with open(folder.parent / "filler", "wb") as file:
            try:
                while True:
                    file.write(bytes(1 << 16))
                    file.flush()
            except OSError:
                pass

    def mend(self, folder: Path, draw: random.Random) -> None:
        """Before resuming."""
        (folder.parent / "filler").unlink()


class Truncated(Signal):
    """A kill, and the newest checkpoint cut off, as a failing disk leaves it."""

    def __init__(self) -> None:
        super().__init__(signal.SIGKILL)

    def mend(self, folder: Path, draw: random.Random) -> None:
        """Before resuming."""
        found = newest_intact(folder)
        if found is not None:
            content = found.path.read_bytes()
            found.path.write_bytes(content[: draw.randrange(len(content))])


class ClockJump(Signal):
    """The clock jumps by a day, and later the run is killed."""

    def __init__(self) -> None:
        super().__init__(signal.SIGKILL)

    def environment(self, draw: random.Random, place: Path, latest: float) -> dict[str, str]:
        """What the process finds in its environment."""
        (place / "sitecustomize.py").write_text(JUMPING.format(seed=draw.randrange(10**6), latest=latest))
        return {"PYTHONPATH": os.pathsep.join([str(place), os.environ.get("PYTHONPATH", "")])}


class Unreachable(Fault):
    """W&B's server does not answer; the run is not touched otherwise."""

    arguments = ("data.num_workers=0", "logger=wandb", "logger.wandb.mode=online")

    def environment(self, draw: random.Random, place: Path, latest: float) -> dict[str, str]:
        """What the process finds in its environment."""
        return {"WANDB_BASE_URL": "http://127.0.0.1:9", "WANDB_API_KEY": "0" * 40}


FAULTS: dict[str, Callable[[], Fault]] = {
    "SIGKILL": lambda: Signal(signal.SIGKILL),
    "SIGTERM": lambda: Signal(signal.SIGTERM),
    "SIGUSR1": lambda: Signal(signal.SIGUSR1),
    "full disk": FullDisk,
    "dead loading process": DeadWorker,
    "W&B unreachable": Unreachable,
    "truncated checkpoint": Truncated,
    "clock jump": ClockJump,
}


def start(place: Path, *arguments: str, **environment: str) -> subprocess.Popen:
    """The training as a process of its own; what it says goes into a file."""
    command = [sys.executable, "-m", "distilpose.train", *TRAIN, "hydra.run.dir=run", *arguments]
    said = open(place / "said.txt", "ab")  # noqa: SIM115  (the process has it)
    variables = os.environ | {"OMP_NUM_THREADS": "1", "WANDB_SILENT": "true"} | environment
    return subprocess.Popen(command, cwd=place, stdout=said, stderr=said, env=variables)


def ending(folder: Path) -> tuple[list[dict[str, float]], dict[str, Any]]:
    """All that a run ends with but how long it took and how often it was begun."""
    rows = [{k: v for k, v in row.items() if k != "seconds"} for row in read_table(folder / "metrics.csv")]
    content = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    return rows, {key: value for key, value in content.items() if key not in ("loops", "callbacks")}


def same(one: Any, other: Any) -> bool:
    """Whether two nests of containers and tensors are equal to the last bit."""
    if torch.is_tensor(one):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


def steps_told(said: str) -> int:
    """The step a run had come to by its progress bar."""
    bars = re.findall(r"Epoch (\d+):[^\r\n]*?(\d+)/(\d+) \[", said)
    return int(bars[-1][0]) * BATCHES + int(bars[-1][1]) if bars else 0


def strike(fault: Fault, draw: random.Random, place: Path, latest: float, whole: Any) -> dict[str, Any]:
    """One case: a run hit at a random moment of its training, resumed until it ends, and compared."""
    place.mkdir(parents=True)
    folder = place / "run"
    process = start(place, *fault.arguments, **fault.environment(draw, place, latest))
    while process.poll() is None and "Epoch 0" not in (place / "said.txt").read_text(errors="replace"):
        time.sleep(0.02)
    moment = draw.uniform(0, latest)
    deadline = time.monotonic() + moment
    while process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    if process.poll() is None:
        fault.strike(process, folder, draw)
    struck = time.monotonic()
    status = process.wait(timeout=300)
    said = (place / "said.txt").read_text(errors="replace")
    fault.mend(folder, draw)
    found = newest_intact(folder)
    case = {
        "moment": moment,
        "status": status,
        "seconds_to_leave": time.monotonic() - struck,
        "steps_done": steps_told(said),
        "steps_kept": 0 if found is None else found.step,
        "last_words": said.strip().splitlines()[-1][-300:] if said.strip() else "",
    }
    again = start(place, *fault.arguments, **fault.environment(draw, place, 1e9)).wait(timeout=300)
    rows, content = ending(folder) if again == 0 else ([], {})
    left = [path.name for path in folder.rglob(".*.part*")]
    identical = again == 0 and rows == whole[0] and same(content, whole[1])
    return {**case, "resumed": again, "identical": identical, "left_behind": left}


def main() -> None:
    """Every fault so many times, as a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--times", type=int, default=10, help="cases of each fault")
    parser.add_argument("--faults", nargs="*", default=list(FAULTS), choices=FAULTS, help="some of them only")
    parser.add_argument("--output", type=Path, default=Path("faults"), help="folder of faults.json and faults.md")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        root, draw = Path(place), random.Random(options.seed)
        began = time.monotonic()
        (root / "whole").mkdir()
        if start(root / "whole", "data.num_workers=0").wait():
            sys.exit(
                f"error: a run that nothing is done to fails:\n{(root / 'whole' / 'said.txt').read_text()[-2000:]}"
            )
        latest = 0.6 * (time.monotonic() - began)
        whole = ending(root / "whole" / "run")
        cases: dict[str, list[dict[str, Any]]] = {}
        for name in options.faults:
            for number in track(range(options.times), name):
                case = root / f"{list(FAULTS).index(name)}_{number}"
                if name == "full disk":
                    disk = root / f"disk_{number}"
                    disk.mkdir()
                    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=40m", "tmpfs", disk], check=True)
                    case = disk / "case"
                cases.setdefault(name, []).append(strike(FAULTS[name](), draw, case, latest, whole))
                if name == "full disk":
                    subprocess.run(["umount", disk], check=True)
    options.output.mkdir(parents=True, exist_ok=True)
    (options.output / "faults.json").write_text(json.dumps(cases, indent=2))
    lines = [
        "| fault | times | exit status | left within | steps lost, most | resumed | identical to the last bit |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, all_of_it in cases.items():
        statuses = ", ".join(map(str, sorted({case["status"] for case in all_of_it})))
        lost = max(case["steps_done"] - case["steps_kept"] for case in all_of_it)
        slowest = max(case["seconds_to_leave"] for case in all_of_it)
        resumed = sum(case["resumed"] == 0 for case in all_of_it)
        identical = sum(case["identical"] for case in all_of_it)
        lines.append(f"| {name} | {len(all_of_it)} | {statuses} | {slowest:.1f} s | {lost} | {resumed} | {identical} |")
    (options.output / "faults.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
