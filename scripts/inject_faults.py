"""Fault injection: measures what a training loses by each type of fault.

    python scripts/inject_faults.py --times 10 --jobs 2 --output faults

A fault is injected into a real run at a random moment; the run is resumed and compared with an uninterrupted one. Each case
is written to faults.json in the output folder when it ends, and the table to faults.md; the same command runs the missing
cases. The full disk is a small tmpfs and the failing disk a small ext4; both need root. A run of one process is forked from
a process that has imported the packages, because importing takes longer than the training. Runs with several processes or
with workers are started as commands.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import torch
from fault_injection import FAULTS, FORKED, KILL, ONE, STEPS, TWO, Fault, Signal, Truncated, run
from fault_runs import OUTPUT, ending, last_message, same, start, steps_done, wait_for_all
from rich.progress import Progress

from distilpose.files import write_json, write_text
from distilpose.runs.checkpoints import newest_intact


def finite_checkpoints(folder: Path, newest: Path | None, fault: Fault) -> bool:
    """Whether all readable checkpoints hold finite weights."""
    paths = [path for path in folder.glob("*.ckpt") if path == newest or not isinstance(fault, Truncated)]
    states = [torch.load(path, weights_only=True)["state_dict"] for path in paths]
    return all(value.isfinite().all() for state in states for value in state.values())


def one_case(name: str, number: int, place: Path, seed: int, reference: Any) -> dict[str, Any]:
    """Inject a fault into a run at a random moment, resume the run until its end, and compare it with the reference."""
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
        injected = process.poll() is None
        if injected:
            try:
                fault.inject(process, place, draw)
            except (ProcessLookupError, FileNotFoundError):  # the run ended at that moment
                injected = False
        injected_at = time.monotonic()
        status, remaining = wait_for_all(process, place, 120)
        ended_at, times = time.monotonic(), steps_done(place)
        message, output = last_message(place), (place / OUTPUT).read_text(errors="replace")
        fault.repair(place, draw)
        checkpoint = newest_intact(folder)
        kept, done = (0 if checkpoint is None else checkpoint.step), max(times, default=0)
        finite = finite_checkpoints(folder / "checkpoints", getattr(checkpoint, "path", None), fault)
        step = int(environment.pop("FAULTS_NAN", step))
        if not fault.waits:
            injected_at = times.get(step + 1, time.monotonic())
        case = {
            "number": number, "step": step, "hit": injected, "status": status, "still_running": remaining,
            "seconds_to_leave": ended_at - injected_at,
            "steps_done": done, "steps_kept": kept, "checkpoints_finite": finite, "last_message": message,
            "seconds_lost": times[done] - times.get(kept, min(times.values())) if times else 0.0,
            "trace": "Traceback (most recent call last)" in output,
        }  # fmt: skip
        resumed, _ = wait_for_all(start(place, fault, **environment), place, 300)
        rows, content = ending(folder) if resumed == 0 else ([], {})
        left = [path.name for path in folder.rglob(".*.part*")]
        identical = resumed == 0 and rows == reference[0] and same(content, reference[1])
        return {**case, "resumed": resumed, "identical": identical, "left_behind": left}
    finally:
        if fault.disk:
            run("umount", place / "disk")
        if not os.environ.get("FAULTS_KEEP"):
            shutil.rmtree(place)


def uninterrupted(place: Path, fault: Fault) -> Any:
    """Metrics and checkpoint of a run without a fault."""
    (place / "disk").mkdir(parents=True)
    if wait_for_all(start(place, fault), place, 300)[0]:
        sys.exit(f"error: a run without a fault fails:\n{(place / OUTPUT).read_text()[-2000:]}")
    return ending(place / "disk" / "run")


def table(cases: dict[str, list[dict[str, Any]]]) -> str:
    """Format the cases as a table with a row for each fault."""
    head = ["fault", "injected", "exit status", "all ended within", "lost at most", "resumed", "identical", "left running",
            "stack traces"]  # fmt: skip
    rows = [head, ["---"] * len(head)]
    for name, group in cases.items():
        steps = max(case["steps_done"] - case["steps_kept"] for case in group)
        counts = [sum(case["resumed"] == 0 for case in group), *(sum(map(bool, (case[key] for case in group))) for key in
                  ("identical", "still_running", "trace"))]  # fmt: skip
        rows.append([
            name, f"{sum(case['hit'] for case in group)} of {len(group)}",
            ", ".join(map(str, sorted({case["status"] for case in group}))),
            f"{max(case['seconds_to_leave'] for case in group):.1f} s",
            f"{steps} steps, {max(case['seconds_lost'] for case in group):.2f} s", *map(str, counts),
        ])  # fmt: skip
    return "\n".join(f"| {' | '.join(row)} |" for row in rows) + "\n"


def main() -> None:
    """Inject every fault several times, and write a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--times", type=int, default=10, help="number of cases for each fault")
    parser.add_argument("--faults", nargs="*", default=list(FAULTS), choices=FAULTS, help="only these faults")
    parser.add_argument("--jobs", type=int, default=1, help="number of concurrent cases")
    parser.add_argument("--output", type=Path, default=Path("faults"), help="folder of faults.json and faults.md")
    parser.add_argument("--seed", type=int, default=0, help="seed of the random moments")
    options = parser.parse_args()
    path = options.output / "faults.json"
    cases = json.loads(path.read_text()) if path.is_file() else {}
    done = {(name, case["number"]) for name, group in cases.items() for case in group}
    wanted = [(name, n) for n in range(options.times) for name in options.faults if (name, n) not in done]
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(options.jobs) as pool, Progress() as progress:
        root = Path(folder)
        single = {name: FAULTS[name].command in (FORKED, ONE) for name in FAULTS}
        references = {
            is_single: uninterrupted(root / f"reference{is_single}", Signal(KILL, command=FORKED if is_single else TWO))
            for is_single in sorted({single[name] for name, _ in wanted})
        }
        running = {}
        for name, n in wanted:
            place = root / f"{list(FAULTS).index(name)}_{n}"
            running[pool.submit(one_case, name, n, place, options.seed, references[single[name]])] = name
        for case in progress.track(as_completed(running), total=len(running), description="cases"):
            cases.setdefault(running[case], []).append(case.result())
            cases = {name: cases[name] for name in FAULTS if name in cases}
            write_json(cases, path)
            write_text(table(cases), options.output / "faults.md")
    print(table(cases))


if __name__ == "__main__":
    main()
