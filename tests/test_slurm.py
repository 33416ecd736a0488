"""`launcher=slurm` with stub programs for SLURM's commands: the submitted script, the signal, and requeueing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

pytestmark = pytest.mark.slow

TINY = [
    "data=custom", "data.batch_size=4", "data.num_workers=0", "augmentation=none", "loss=regression", "model=student_xs",
    "model.depth=1", "model.width=32", "model.heads=2", "model.input_size=[64,48]", "scheduler.warmup_steps=0",
    "optimizer.lr=5e-3", "trainer.accelerator=cpu", "trainer.strategy=ddp", "trainer.check_val_every_n_epoch=1",
    "trainer.num_sanity_val_steps=0", "trainer.max_epochs=4", "logger=none", "~callbacks.pictures", "~callbacks.health",
    "~callbacks.details",
    "callbacks=ema", "callbacks.ema.decay=0.9",
]  # fmt: skip
# each records its arguments
SBATCH = '#!/bin/sh\ncp "$1" "$SLURM_STUB/script.sh"\necho "Submitted batch job 42"\n'
SCONTROL = '#!/bin/sh\necho "scontrol $*" >> "$SLURM_STUB/calls"\n'
SACCT = "#!/bin/sh\necho 'JobID|State|NodeList'\necho '42|PENDING|'\n"
# starts as many tasks as the script asks for, and forwards a signal to all of them
SRUN = f"""#!{sys.executable}
import os, re, signal, subprocess, sys
script = open(os.environ["SLURM_STUB"] + "/script.sh").read()
tasks = int(re.search(r"--ntasks-per-node=(\\d+)", script)[1])
command = sys.argv[next(i for i, word in enumerate(sys.argv) if "python" in word and i):]
job = dict(SLURM_JOB_ID="42", SLURM_JOB_NAME="train", SLURM_NNODES="1",
           SLURM_JOB_NUM_NODES="1", SLURM_NTASKS=str(tasks), SLURM_NTASKS_PER_NODE=str(tasks), SLURM_NODEID="0",
           SLURM_NODELIST="localhost", SLURM_JOB_NODELIST="localhost")
places = [dict(SLURM_PROCID=str(i), SLURM_LOCALID=str(i)) for i in range(tasks)]
running = [subprocess.Popen(command, env=os.environ | job | place) for place in places]
signal.signal(signal.SIGUSR2, lambda number, frame: [one.send_signal(number) for one in running])
sys.exit(max(one.wait() & 255 for one in running))
"""


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """SLURM's stub commands on the path; the folder of their records."""
    for name, program in {"sbatch": SBATCH, "scontrol": SCONTROL, "sacct": SACCT, "srun": SRUN}.items():
        (tmp_path / name).write_text(program)
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("SLURM_STUB", str(tmp_path))
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return tmp_path


def submitted(folder, *arguments: str) -> str:
    """The script that the launcher passes to sbatch; the launcher itself would wait for the job."""
    command = [sys.executable, "-m", "distilpose.train", "-m", "launcher=slurm", *arguments]
    with open(folder / "launcher.txt", "wb") as output:
        launcher = subprocess.Popen(command, cwd=folder, stdout=output, stderr=output)
    deadline = time.monotonic() + 400
    while not list(folder.glob("**/42/42_submitted.pkl")):
        assert launcher.poll() is None, (folder / "launcher.txt").read_text()
        assert time.monotonic() < deadline
        time.sleep(0.1)
    launcher.kill()
    launcher.wait()
    return (folder / "script.sh").read_text()


def test_a_task_for_each_gpu_and_a_signal_before_the_end(slurm):
    script = submitted(
        slurm,
        "hydra.launcher.nodes=4",
        "trainer=ddp",
        "hydra.launcher.timeout_min=60",
        "hydra.launcher.partition=long",
    )
    for option in (
        "nodes=4",
        "ntasks-per-node=8",
        "gpus-per-node=8",
        "signal=USR2@120",
        "time=60",
        "requeue",
        "partition=long",
    ):
        assert f"#SBATCH --{option}\n" in script, script


def test_a_job_whose_time_is_up_is_requeued_and_resumes(slurm, tiny_coco, assert_same_end):
    settings = [*TINY, f"data.root={tiny_coco(train=60, val=4)}", "data.val_batch_size=2"]
    script = submitted(
        slurm, *settings, "hydra.launcher.gpus_per_node=2", "hydra.sweep.dir=sweep", "hydra.sweep.subdir=run"
    )
    assert "#SBATCH --ntasks-per-node=2\n" in script
    start = [
        "bash",
        "-c",
        script.replace("%j", "42").split("# command\n")[1].replace("srun", "exec srun"),
    ]
    job = subprocess.Popen(start, cwd=slurm, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    deadline = time.monotonic() + 400
    while not (slurm / "sweep" / "run" / "checkpoints" / "last.ckpt").is_file():
        assert job.poll() is None, job.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.05)
    job.send_signal(signal.SIGUSR2)
    output = job.communicate(timeout=400)[0]
    assert "Stopped by SIGUSR2" in output
    assert (slurm / "calls").read_text() == "scontrol requeue 42\n"

    job = subprocess.run(start, cwd=slurm, capture_output=True, text=True, timeout=400)  # as SLURM starts it again
    assert job.returncode == 0, job.stdout + job.stderr
    command = [sys.executable, "-m", "distilpose.train", *settings, "trainer.devices=2", "hydra.run.dir=whole"]
    subprocess.run(command, cwd=slurm, check=True, capture_output=True, timeout=400)
    assert_same_end(slurm / "sweep" / "run", slurm / "whole")
