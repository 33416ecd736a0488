"""What a training loses by each kind of fault: real runs, hit at random moments, resumed, compared with one let alone.

    python scripts/inject_faults.py --times 10 --jobs 2 --output faults

writes every case into faults.json of the output folder as it ends, and the table into faults.md; started again it goes on
with the cases that are missing. A full disk is a small tmpfs and one with an error a small ext4, which take root. Runs of one
process are forked from one that has imported the packages, which takes longer than the training itself; those of several
processes and those with loading processes are commands.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import torch
from fault_kinds import (
    FAULTS,
    FORKED,
    KILL,
    ONE,
    STEPS,
    TRAIN,
    TWO,
    Fault,
    Process,
    Signal,
    Truncated,
    run,
    running_in,
)
from rich.progress import Progress

from distilpose.callbacks.metrics_table import read_table
from distilpose.files import write_json, write_text
from distilpose.runs.checkpoints import newest_intact

os.environ["OMP_NUM_THREADS"] = "1"
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["distilpose.train"])


class Forked(FORKS.Process):  # type: ignore[name-defined,misc]
    """The training command in a process that has its modules already, to be watched like one of `subprocess`."""

    def poll(self) -> int | None:
        """Its exit status, negative for a signal; None while it runs."""
        return self.exitcode

    def wait(self) -> int:
        """Its exit status once it has ended."""
        self.join()
        return self.exitcode


def train(place: Path, arguments: list[str], environment: dict[str, str]) -> None:
    """What such a process does."""
    os.setsid()
    os.chdir(place)
    os.environ.update(environment)
    said = os.open("said.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(said, 1)
    os.dup2(said, 2)
    if jump := int(environment.get("FAULTS_JUMP", 0)):
        now = time.time
        time.time = lambda: now() + (jump if os.path.exists(place / "jumped") else 0)
    sys.argv = ["train", *arguments]
    from distilpose.train import main

    main()


def start(place: Path, fault: Fault, **environment: str) -> Process:
    """The training as a group of processes of its own; what it says goes into a file outside its folder."""
    path = os.pathsep.join([str(Path(__file__).resolve().parent), os.environ.get("PYTHONPATH", "")])
    variables = {"WANDB_SILENT": "true", "PYTHONPATH": path, **environment}
    arguments = [*TRAIN, *fault.arguments, f"data.folder={place.parent / 'data'}"]  # drawn once for all cases
    if fault.command is FORKED:
        process = Forked(target=train, args=(place, [*FORKED, *arguments], variables))
        process.start()
        return process
    options: Any = {"cwd": place, "env": os.environ | variables, "start_new_session": True}
    with open(place / "said.txt", "wb") as said:
        return subprocess.Popen([*fault.command, *arguments], stdout=said, stderr=said, **options)


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


def steps_done(place: Path) -> list[tuple[int, float]]:
    """Each step a run has told, and when."""
    told = (place / "steps.txt").read_text() if (place / "steps.txt").exists() else ""
    return [(int(line.split()[0]), float(line.split()[1])) for line in told.splitlines(keepends=True) if "\n" in line]


def last_words(place: Path) -> str:
    """What a run said last, progress bars left out."""
    text = re.sub(r"[^\r\n]*?(it/s|s/it)\]", "\n", (place / "said.txt").read_text(errors="replace"))
    spoken = [line.strip("\x1b[A ") for line in re.split(r"[\r\n]", text) if line.strip("\x1b[A ")]
    ours = [line for line in spoken if line.startswith(("error: ", "Left on "))]  # torchrun talks on after it
    return (ours or spoken or [""])[-1]


def leave(process: Process, place: Path, seconds: float) -> tuple[int, list[int]]:
    """Wait until every process of a run has gone: exit status of the first, and who had to be killed."""
    deadline = time.monotonic() + seconds
    while (process.poll() is None or running_in(place)) and time.monotonic() < deadline:
        time.sleep(0.02)
    stayed = running_in(place)
    for one in stayed:
        os.kill(one, signal.SIGKILL)
    return process.wait(), stayed


def one_case(name: str, number: int, place: Path, seed: int, whole: Any) -> dict[str, Any]:
    """A run hit at a random moment of its training, resumed until it ends, and compared."""
    fault, draw = FAULTS[name], random.Random(f"{seed} {name} {number}")
    (place / "disk").mkdir(parents=True)
    if fault.disk:
        fault.mount(place)
    folder = place / "disk" / "run"
    try:
        environment = fault.environment(place, draw)
        process = start(place, fault, **environment)
        step, delay = draw.randrange(STEPS - 4), draw.uniform(0, 0.3)  # validations and checkpoints are between steps
        while process.poll() is None and fault.waits and len(steps_done(place)) < step + 1:
            time.sleep(0.005)
        time.sleep(delay)
        hit = process.poll() is None
        if hit:
            try:
                fault.strike(process, place, draw)
            except (ProcessLookupError, FileNotFoundError):  # it has just come to its end
                hit = False
        struck = time.monotonic()
        status, stayed = leave(process, place, 120)
        left_at, said = time.monotonic(), (place / "said.txt").read_text(errors="replace")
        words, times = last_words(place), dict(steps_done(place))
        fault.mend(place, draw)
        found = newest_intact(folder)
        kept, done = (0 if found is None else found.step), max(times, default=0)
        finite = all(
            value.isfinite().all()
            for path in (folder / "checkpoints").glob("*.ckpt")
            if path == getattr(found, "path", None) or not isinstance(fault, Truncated)
            for value in torch.load(path, weights_only=True)["state_dict"].values()
        )
        step = int(environment.pop("FAULTS_NAN", step))
        if not fault.waits:
            struck = times.get(step + 1, time.monotonic())
        case = {
            "number": number, "step": step, "hit": hit, "status": status, "stayed": len(stayed),
            "seconds_to_leave": left_at - struck,
            "steps_done": done, "steps_kept": kept, "checkpoints_finite": finite, "last_words": words,
            "seconds_lost": times[done] - times.get(kept, min(times.values())) if times else 0.0,
            "trace": "Traceback (most recent call last)" in said,
        }  # fmt: skip
        again, _ = leave(start(place, fault, **environment), place, 300)
        rows, content = ending(folder) if again == 0 else ([], {})
        left = [path.name for path in folder.rglob(".*.part*")]
        identical = again == 0 and rows == whole[0] and same(content, whole[1])
        return {**case, "resumed": again, "identical": identical, "left_behind": left}
    finally:
        if fault.disk:
            run("umount", place / "disk")
        if not os.environ.get("FAULTS_KEEP"):
            shutil.rmtree(place)


def let_alone(place: Path, fault: Fault) -> Any:
    """How a run ends that nothing is done to."""
    (place / "disk").mkdir(parents=True)
    if leave(start(place, fault), place, 300)[0]:
        sys.exit(f"error: a run that nothing is done to fails:\n{(place / 'said.txt').read_text()[-2000:]}")
    return ending(place / "disk" / "run")


def table(cases: dict[str, list[dict[str, Any]]]) -> str:
    """The cases, a row a fault."""
    lines = [
        "| fault | hit | exit status | all gone within | lost at most | resumed | identical | left running | stack traces |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, every in cases.items():
        statuses = ", ".join(map(str, sorted({case["status"] for case in every})))
        steps = max(case["steps_done"] - case["steps_kept"] for case in every)
        cells = [
            name, f"{sum(case['hit'] for case in every)} of {len(every)}", statuses,
            f"{max(case['seconds_to_leave'] for case in every):.1f} s",
            f"{steps} steps, {max(case['seconds_lost'] for case in every):.2f} s",
            sum(case["resumed"] == 0 for case in every), sum(case["identical"] for case in every),
            sum(case["stayed"] > 0 for case in every), sum(case["trace"] for case in every),
        ]  # fmt: skip
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Every fault so many times, as a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--times", type=int, default=10, help="cases of each fault")
    parser.add_argument("--faults", nargs="*", default=list(FAULTS), choices=FAULTS, help="some of them only")
    parser.add_argument("--jobs", type=int, default=1, help="cases side by side")
    parser.add_argument("--output", type=Path, default=Path("faults"), help="folder of faults.json and faults.md")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    options = parser.parse_args()
    written = options.output / "faults.json"
    cases = json.loads(written.read_text()) if written.is_file() else {}
    done = {(name, case["number"]) for name, every in cases.items() for case in every}
    wanted = [(name, n) for n in range(options.times) for name in options.faults if (name, n) not in done]
    with tempfile.TemporaryDirectory() as root, ThreadPoolExecutor(options.jobs) as pool, Progress() as progress:
        whole = {}
        for alone, command in ((True, FORKED), (False, TWO)):
            if any((FAULTS[name].command in (FORKED, ONE)) == alone for name, _ in wanted):
                whole[alone] = let_alone(Path(root) / f"whole{alone}", Signal(KILL, command=command))
        bar = progress.add_task("cases", total=len(wanted))
        running = {}
        for name, n in wanted:
            place = Path(root) / f"{list(FAULTS).index(name)}_{n}"
            running[
                pool.submit(one_case, name, n, place, options.seed, whole[FAULTS[name].command in (FORKED, ONE)])
            ] = name
        for case in as_completed(running):
            cases.setdefault(running[case], []).append(case.result())
            cases = {name: cases[name] for name in FAULTS if name in cases}
            write_json(cases, written)
            write_text(table(cases), options.output / "faults.md")
            progress.advance(bar)
    print(table(cases))


if __name__ == "__main__":
    main()
