"""Rehearse a cluster on one machine with CPU processes: compares numbers of processes, and simulates two nodes.

    python scripts/rehearse_cluster.py figures   # one checkpoint evaluated by 1, 2, 3 and 4 processes, compared bit by bit
    python scripts/rehearse_cluster.py curves    # the loss of equal effective batches, distributed in five ways
    python scripts/rehearse_cluster.py nodes     # two nodes of two processes; one is lost, and both are started again

Each prints a table and writes it to --output. The nodes are network namespaces; they need root and `ip`.
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
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from fault_runs import ending, same
from rich.progress import track

from distilpose.callbacks.metrics_table import read_table
from distilpose.files import write_text

PERSONS, VALIDATION_PERSONS, EPOCHS = 77, 29, 3  # not divisible by 2, 3 or 4
TRAIN = [
    "data=synthetic", f"data.num_train={PERSONS}", f"data.num_val={VALIDATION_PERSONS}", "data.max_persons=1",
    "data.image_size=96", "data.variety=0", "data.val_batch_size=4", "data.num_workers=0", "model.depth=1", "model.width=32",
    "model.heads=2", "model.input_size=[64,48]",
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
STRATEGY = os.environ.get("STRATEGY", "ddp")  # strategy of the two nodes


def run(place: Path, command: list[str]) -> None:
    """Run a command in a folder; if it fails, exit with the end of its output."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True, timeout=900)
    if done.returncode:
        sys.exit(f"error: {' '.join(command)} failed:\n{done.stderr[-3000:]}")


def train(place: Path, name: str, *arguments: str, processes: int = 1) -> list[dict[str, float]]:
    """Train in the folder `name`; return its table of metrics."""
    devices = [f"trainer.devices={processes}", "trainer.strategy=ddp"]
    run(place, [sys.executable, "-m", "distilpose.train", *TRAIN, *devices, *arguments, f"hydra.run.dir={name}"])
    return read_table(place / name / "metrics.csv")


def markdown(head: Sequence[object], rows: Sequence[Sequence[object]]) -> str:
    """Format a Markdown table."""
    return "\n".join(f"| {' | '.join(map(str, row))} |" for row in (head, ["---"] * len(head), *rows))


def validate(checkpoint: str, output: str) -> None:
    """Validate a checkpoint in each process of torchrun; write metrics and a digest of the predictions."""
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
        accelerator="cpu", devices=cfg.trainer.devices, strategy="ddp", use_distributed_sampler=False, logger=False,
        enable_checkpointing=False, enable_progress_bar=False,
    )  # fmt: skip
    (figures,) = trainer.validate(module, datamodule, verbose=False)
    if module.validated is not None:  # only in the first process
        predictions, _ = module.validated
        order = predictions.annotation_id.argsort()
        digest = hashlib.sha256(b"".join(part[order].numpy().tobytes() for part in predictions)).hexdigest()
        different = len(set(predictions.annotation_id.tolist()))
        content = {"persons": len(order), "different": different, "predictions": digest[:16], **figures}
        Path(output).write_text(json.dumps(content))


def figures(place: Path) -> str:
    """Evaluate one trained student with different numbers of processes."""
    train(place, "trained", "model=student_xs", "data.batch_size=8", "trainer.max_epochs=80")
    checkpoint, results = str(place / "trained" / "checkpoints" / "last.ckpt"), []
    for processes in track((1, 2, 3, 4), "figures"):
        launch = [*TORCHRUN, "--standalone", f"--nproc-per-node={processes}", str(Path(__file__).resolve())]
        run(place, [*launch, "validate", "--checkpoint", checkpoint, "--result", "figures.json"])
        results.append(json.loads((place / "figures.json").read_text()))
    names = ["val/AP", "val/AR", "val/PCK"]
    rows = []
    for processes, result in enumerate(results, 1):
        compared = "-" if processes == 1 else "identical to one's" if result == results[0] else "DIFFERENT"
        persons = f"{result['persons']}, {result['different']}"
        rows.append([processes, persons, *(repr(result[name]) for name in names), result["predictions"], compared])
    return markdown(["processes", "persons, different", *names, "predictions' SHA-256", "all figures"], rows)


def curves(place: Path) -> str:
    """Train each model with equal effective batches in several layouts, and compare the losses."""
    rows = []
    for model, arguments in track(MODELS.items(), "curves"):
        losses = []
        for number, (batch, processes, accumulated) in enumerate(LAYOUTS):
            layout = [f"data.batch_size={batch}", f"trainer.accumulate_grad_batches={accumulated}"]
            table = train(place, f"model{len(rows)}_{number}", *arguments, *layout, processes=processes)
            losses.append([row["train/total"] for row in table])
        differences = [
            ", ".join(f"{abs(a / b - 1):.0e}" for a, b in zip(curve, losses[0], strict=True)) for curve in losses[1:]
        ]
        rows.append([model, ", ".join(f"{loss:.5f}" for loss in losses[0]), *differences])
    return markdown(["model", "loss, 8 x 1 x 1, by epoch", *(" x ".join(map(str, one)) for one in LAYOUTS[1:])], rows)


@contextmanager
def two_nodes() -> Iterator[None]:
    """Create two network namespaces, each with an address that only the other can reach."""
    commands = ["ip netns add node0", "ip netns add node1"]
    commands += ["ip link add wire0 netns node0 type veth peer wire1 netns node1"]
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


def start_node(place: Path, number: int, name: str) -> subprocess.Popen[bytes]:
    """Start torchrun with two processes on one of the nodes."""
    launch = [
        "ip", "netns", "exec", f"node{number}", *TORCHRUN, "--nnodes=2", "--nproc-per-node=2", "--rdzv-backend=c10d",
        f"--rdzv-endpoint={NODES[0]}:29500", "--rdzv-id=rehearsal", f"--local-addr={NODES[number]}",
        f"--rdzv-conf=is_host={int(number == 0)}",  # both have the same host name
    ]  # fmt: skip
    settings = [
        "model=student_xs", "method.frozen=[backbone]", "data.batch_size=2", "trainer.devices=2", "trainer.num_nodes=2",
        f"trainer.strategy={STRATEGY}", "resume=auto", "callbacks.interruption.minutes=0.01", f"hydra.run.dir={name}",
    ]  # fmt: skip
    variables = {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": f"wire{number}", "PYTHONUNBUFFERED": "1"}
    command = [*launch, "-m", "distilpose.train", *TRAIN, *settings]
    with open(place / f"{name}_node{number}.txt", "ab") as output:
        return subprocess.Popen(command, cwd=place, stdout=output, stderr=output, env=os.environ | variables)


def nodes(place: Path) -> str:
    """Compare two nodes with one process; then kill the second node, and start both again."""
    single = train(place, "single", "model=student_xs", "method.frozen=[backbone]", "data.batch_size=8")
    with two_nodes():
        statuses = [
            process.wait(600) for process in [start_node(place, number, "uninterrupted") for number in range(2)]
        ]
        if any(statuses):
            sys.exit(
                f"error: two nodes end with {statuses}:\n{(place / 'uninterrupted_node0.txt').read_text()[-3000:]}"
            )
        expected = ending(place / "uninterrupted")
        difference = max(abs(a["train/total"] / b["train/total"] - 1) for a, b in zip(expected[0], single, strict=True))
        pck = [row["val/PCK"] for row in (expected[0][-1], single[-1])]
        both = [start_node(place, number, "broken") for number in range(2)]
        while not (place / "broken" / "checkpoints" / "recent.ckpt").exists() and both[0].poll() is None:
            time.sleep(0.05)
        time.sleep(0.5)
        for process in subprocess.run(["ip", "netns", "pids", "node1"], capture_output=True, text=True).stdout.split():
            os.kill(int(process), signal.SIGKILL)
        killed_at = time.monotonic()
        status, seconds = both[0].wait(600), time.monotonic() - killed_at
        both[1].wait(600)
        output = (place / "broken_node0.txt").read_text(errors="replace")
        errors = [line.partition("error: ")[2] for line in output.splitlines() if "error: " in line]
        again = [process.wait(600) for process in [start_node(place, number, "broken") for number in range(2)]]
    rows, content = ending(place / "broken")
    identical = rows == expected[0] and all(same(content[key], expected[1][key]) for key in expected[1])
    weights, others = content["state_dict"], expected[1]["state_dict"]
    furthest = max((weights[name] - others[name]).abs().max().item() for name in weights)
    compared = "bit for bit" if identical else f"weights within {furthest:.0e}"
    return markdown(
        ["rehearsal", "outcome"],
        [
            ["2 nodes x 2 processes x batch 2", f"exit statuses {statuses}, {len(expected[0])} epochs, each validated"],
            ["their loss and that of one process with batch 8", f"largest relative difference {difference:.1e}"],
            ["val/PCK of the last epoch", f"{pck[0]!r}, one process {pck[1]!r}"],
            ["node 2 killed in the middle", f"node 1 ended after {seconds:.1f} s, status {status}"],
            ["its last error message", errors[-1] if errors else "none"],
            ["both started again by the same command", f"exit statuses {again}, {compared} as the uninterrupted run"],
        ],
    )


def main() -> None:
    """Run one rehearsal; print and write its table."""
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
