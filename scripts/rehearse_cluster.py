"""A cluster rehearsed on one machine with CPU processes: what does not depend on how many there are, and two nodes.

    python scripts/rehearse_cluster.py figures   # one checkpoint evaluated by 1, 2, 3 and 4 processes, compared to the last bit
    python scripts/rehearse_cluster.py curves    # the loss of equal effective batches, shared out in five ways
    python scripts/rehearse_cluster.py nodes     # two nodes of two processes; one is lost in the middle, and both start again

Each prints a table and writes it into --output. Nodes are network namespaces, which take root and `ip`.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from inject_faults import ending, same
from rich.progress import track

from distilpose.callbacks.metrics_table import read_table
from distilpose.files import write_text

PERSONS, HELD_OUT, EPOCHS = 77, 29, 3  # divided by none of 2, 3 and 4
TRAIN = [
    "data=synthetic", f"data.num_train={PERSONS}", f"data.num_val={HELD_OUT}", "data.max_persons=1", "data.image_size=96",
    "data.variety=0", "data.val_batch_size=4", "data.num_workers=0", "model.depth=1", "model.width=32", "model.heads=2",
    "model.input_size=[64,48]",
    "loss=regression", "scheduler=cosine", "scheduler.warmup_steps=0", "optimizer.lr=1e-3", f"trainer.max_epochs={EPOCHS}",
    "trainer.check_val_every_n_epoch=1", "trainer.num_sanity_val_steps=0", "trainer.accelerator=cpu", "logger=none",
    "~callbacks.pictures", "~callbacks.health",
]  # fmt: skip
TORCHRUN = [sys.executable, "-m", "torch.distributed.run"]
LAYOUTS = [(8, 1, 1), (4, 2, 1), (2, 4, 1), (4, 1, 2), (2, 2, 2)]  # batch of a process, processes, accumulated batches
MODELS = {
    "no batch norm (`student_timm`, convnext_atto)": ["model=student_timm", "model.backbone=convnext_atto"],
    "batch norms frozen (`student_xs`, `method.frozen=[backbone]`)": ["model=student_xs", "method.frozen=[backbone]"],
    "batch norms (`student_xs`)": ["model=student_xs"],
}  # fmt: skip
NODES = ("10.213.0.1", "10.213.0.2")
STRATEGY = os.environ.get("STRATEGY", "ddp")  # of the two nodes


def run(place: Path, command: list[str], check: bool = True) -> subprocess.CompletedProcess[str]:
    """A command in a folder; with `check`, its own last words end this one where it fails."""
    done = subprocess.run(
        command, cwd=place, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=900
    )
    if check and done.returncode:
        sys.exit(f"error: {' '.join(command)} failed:\n{done.stderr[-3000:]}")
    return done


def train(place: Path, name: str, *arguments: str, processes: int = 1) -> list[dict[str, float]]:
    """A training in a folder of that name: its table."""
    several = [f"trainer.devices={processes}", "trainer.strategy=ddp"]
    run(place, [sys.executable, "-m", "distilpose.train", *TRAIN, *several, *arguments, f"hydra.run.dir={name}"])
    return read_table(place / name / "metrics.csv")


def validate(checkpoint: str, output: str) -> None:
    """What each of torchrun's processes does for `figures`."""
    from hydra import compose, initialize_config_dir
    from lightning import Trainer

    from distilpose.cli.paths import CONFIG_DIR
    from distilpose.models import load_model
    from distilpose.train import build

    with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        processes = f"trainer.devices={os.environ['WORLD_SIZE']}"
        cfg = compose("train", [*TRAIN, "model=student_xs", "folder=unused", processes])
    datamodule, module = build(cfg)
    module.model.load_state_dict(load_model(checkpoint).state_dict())
    trainer = Trainer(
        accelerator="cpu",
        devices=cfg.trainer.devices,
        strategy="ddp",
        use_distributed_sampler=False,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
    )
    gather, found = module._from_all_processes, []

    def kept(mine: Any) -> Any:
        found.append(gather(mine))
        return found[-1]

    module._from_all_processes = kept
    (figures,) = trainer.validate(module, datamodule, verbose=False)
    if trainer.is_global_zero:
        order = found[0].annotation_id.argsort()
        digest = hashlib.sha256(b"".join(part[order].numpy().tobytes() for part in found[0])).hexdigest()
        told = {
            "persons": len(order),
            "different": len(set(found[0].annotation_id.tolist())),
            "predictions": digest[:16],
        }
        Path(output).write_text(json.dumps({**told, **figures}))


def figures(place: Path) -> str:
    """One trained student evaluated by several numbers of processes."""
    train(place, "trained", "model=student_xs", "data.batch_size=8", "trainer.max_epochs=80")
    checkpoint, rows = str(place / "trained" / "checkpoints" / "last.ckpt"), []
    for processes in track((1, 2, 3, 4), "figures"):
        launch = [*TORCHRUN, "--standalone", f"--nproc-per-node={processes}", str(Path(__file__).resolve())]
        run(place, [*launch, "validate", "--checkpoint", checkpoint, "--result", "figures.json"])
        rows.append(json.loads((place / "figures.json").read_text()))
    names = ["val/AP", "val/AR", "val/PCK"]
    lines = [
        f"| processes | persons, different | {' | '.join(names)} | predictions' SHA-256 | all figures |",
        "| --- " * 7 + "|",
    ]
    for processes, row in enumerate(rows, 1):
        told = "-" if processes == 1 else "identical to one's" if row == rows[0] else "DIFFERENT"
        cells = [
            processes,
            f"{row['persons']}, {row['different']}",
            *(repr(row[name]) for name in names),
            row["predictions"],
            told,
        ]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines)


def curves(place: Path) -> str:
    """Each model's loss under equal effective batches."""
    head = " | ".join(f"{batch} x {processes} x {accumulated}" for batch, processes, accumulated in LAYOUTS[1:])
    lines = [f"| model | loss, 8 x 1 x 1, by epoch | {head} |", "| --- " * (len(LAYOUTS) + 1) + "|"]
    for model, arguments in track(MODELS.items(), "curves"):
        losses = []
        for number, (batch, processes, accumulated) in enumerate(LAYOUTS):
            layout = [f"data.batch_size={batch}", f"trainer.accumulate_grad_batches={accumulated}"]
            rows = train(place, f"{model[:3]}{len(lines)}_{number}", *arguments, *layout, processes=processes)
            losses.append([row["train/total"] for row in rows])
        apart = [
            ", ".join(f"{abs(a / b - 1):.0e}" for a, b in zip(curve, losses[0], strict=True)) for curve in losses[1:]
        ]
        told = ", ".join(f"{loss:.5f}" for loss in losses[0])
        lines.append(f"| {model} | {told} | {' | '.join(apart)} |")
    return "\n".join(lines)


@contextmanager
def two_nodes() -> Iterator[None]:
    """Two network namespaces, each with an address that only the other can reach."""
    commands = [
        "ip netns add node0",
        "ip netns add node1",
        "ip link add wire0 netns node0 type veth peer wire1 netns node1",
    ]
    for number, address in enumerate(NODES):
        inside = f"ip netns exec node{number} ip"
        commands += [f"{inside} addr add {address}/24 dev wire{number}", f"{inside} link set wire{number} up"]
        commands += [f"{inside} link set lo up"]
    try:
        for command in commands:
            subprocess.run(command.split(), check=True)
        yield
    finally:
        for number in range(len(NODES)):
            subprocess.run(["ip", "netns", "del", f"node{number}"], check=False)


def agent(place: Path, number: int, name: str) -> subprocess.Popen[bytes]:
    """Start torchrun on one of the nodes, with two processes."""
    command = [
        "ip",
        "netns",
        "exec",
        f"node{number}",
        *TORCHRUN,
        "--nnodes=2",
        "--nproc-per-node=2",
        "--rdzv-backend=c10d",
    ]
    command += [f"--rdzv-endpoint={NODES[0]}:29500", "--rdzv-id=rehearsal", f"--local-addr={NODES[number]}"]
    command += [
        f"--rdzv-conf=is_host={int(number == 0)}",
        "-m",
        "distilpose.train",
        *TRAIN,
        "model=student_xs",
    ]  # one host name
    command += [
        "method.frozen=[backbone]",
        "data.batch_size=2",
        "trainer.devices=2",
        "trainer.num_nodes=2",
        "resume=auto",
    ]
    command += [f"trainer.strategy={STRATEGY}", "callbacks.interruption.minutes=0.01", f"hydra.run.dir={name}"]
    variables = {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": f"wire{number}", "PYTHONUNBUFFERED": "1"}
    with open(place / f"{name}_node{number}.txt", "ab") as said:
        return subprocess.Popen(command, cwd=place, stdout=said, stderr=said, env=os.environ | variables)


def nodes(place: Path) -> str:
    """Two nodes beside one process; then the second node is lost with all its processes, and both are started again."""
    alone = train(place, "alone", "model=student_xs", "method.frozen=[backbone]", "data.batch_size=8")
    with two_nodes():
        statuses = [process.wait(600) for process in [agent(place, number, "whole") for number in range(2)]]
        if any(statuses):
            sys.exit(f"error: two nodes end with {statuses}:\n{(place / 'whole_node0.txt').read_text()[-3000:]}")
        whole = ending(place / "whole")
        apart = max(abs(a["train/total"] / b["train/total"] - 1) for a, b in zip(whole[0], alone, strict=True))
        pck = [row["val/PCK"] for row in (whole[0][-1], alone[-1])]
        lines = [
            "| rehearsal | outcome |", "| --- | --- |",
            f"| 2 nodes x 2 processes x batch 2 | exit statuses {statuses}, {len(whole[0])} epochs, each validated |",
            f"| their loss beside one process with batch 8 | largest relative difference {apart:.1e} |",
            f"| val/PCK of the last epoch | {pck[0]!r}, one process {pck[1]!r} |",
        ]  # fmt: skip
        both = [agent(place, number, "broken") for number in range(2)]
        while not (place / "broken" / "checkpoints" / "recent.ckpt").exists() and both[0].poll() is None:
            time.sleep(0.05)
        time.sleep(0.5)
        for process in subprocess.run(["ip", "netns", "pids", "node1"], capture_output=True, text=True).stdout.split():
            os.kill(int(process), signal.SIGKILL)
        struck = time.monotonic()
        status = both[0].wait(600)
        both[1].wait(600)
        said = (place / "broken_node0.txt").read_text(errors="replace")
        words = [line for line in said.splitlines() if "error: " in line]
        lines += [
            f"| node 2 killed in the middle | node 1 ended after {time.monotonic() - struck:.1f} s, status {status} |"
        ]
        lines += [f"| its last words | {words[-1].partition('error: ')[2] if words else 'none'} |"]
        again = [process.wait(600) for process in [agent(place, number, "broken") for number in range(2)]]
        rows, content = ending(place / "broken")
        alike = rows == whole[0] and all(same(content[key], whole[1][key]) for key in whole[1])
        weights, others = (ended["state_dict"] for ended in (content, whole[1]))
        furthest = max((weights[name] - others[name]).abs().max().item() for name in weights)
        told = "bit for bit as the run let alone" if alike else f"weights within {furthest:.0e} of the run let alone"
        lines += [f"| both started again by the same command | exit statuses {again}, {told} |"]
    return "\n".join(lines)


def main() -> None:
    """One rehearsal, its table printed and written."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("figures", "curves", "nodes", "validate"))
    parser.add_argument("--output", type=Path, default=Path("rehearsal"), help="folder of the tables")
    parser.add_argument("--checkpoint", help=argparse.SUPPRESS)
    parser.add_argument("--result", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.what == "validate":
        return validate(options.checkpoint, options.result)
    with tempfile.TemporaryDirectory() as place:
        table = {"figures": figures, "curves": curves, "nodes": nodes}[options.what](Path(place))
    write_text(table + "\n", options.output / f"{options.what}.md")
    print(table)


if __name__ == "__main__":
    main()
