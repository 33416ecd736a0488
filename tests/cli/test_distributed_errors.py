"""Dead workers and dead processes of a training, with real errors of torch."""

from __future__ import annotations

import os
import signal
import socket
from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from distilpose.cli.distributed_errors import translate_distributed_errors
from distilpose.errors import DistilPoseError


class Fatal(Dataset):
    """Kills its worker, as the system does when memory runs out, or raises `error` in it."""

    def __init__(self, error: Exception | None = None):
        self.error = error

    def __len__(self):
        return 4

    def __getitem__(self, index):
        if self.error is None:
            os.kill(os.getpid(), signal.SIGKILL)
        raise self.error


def test_a_dead_worker_is_one_sentence():
    with pytest.raises(DistilPoseError) as error, translate_distributed_errors():
        list(DataLoader(Fatal(), num_workers=1))
    assert all(fact in str(error.value) for fact in ("(DataLoader worker (pid", "data.num_workers", "resume=auto"))
    assert "\n" not in str(error.value)


def test_a_defect_in_a_worker_keeps_its_trace():
    with pytest.raises(RuntimeError, match="Original Traceback"), translate_distributed_errors():
        list(DataLoader(Fatal(RuntimeError("shapes do not fit")), num_workers=1))


@translate_distributed_errors()
def _reduce_many_times() -> None:
    for _ in range(1000):
        torch.distributed.all_reduce(torch.ones(1))


def _reduce_without_the_other(rank: int, port: int, printed: Path) -> None:
    torch.distributed.init_process_group("gloo", f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    if rank == 1:
        os._exit(0)
    try:
        _reduce_many_times()
    except DistilPoseError as error:
        printed.write_text(str(error))
    os._exit(0)  # gloo's threads sometimes abort an interpreter that ends without the other process


@pytest.mark.slow
def test_a_dead_training_process_is_one_sentence(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torch.multiprocessing.spawn(_reduce_without_the_other, (port, tmp_path / "printed"), nprocs=2)
    printed = (tmp_path / "printed").read_text()
    assert "process of this training" in printed
    assert "resume=auto" in printed


GLOO = "[../third_party/gloo/gloo/transport/tcp/pair.cc:534] Connection closed by peer [127.0.0.1]:20105"


@pytest.mark.parametrize(
    ("kind", "words", "lost"),
    [
        (torch.distributed.DistBackendError, "NCCL error: ncclRemoteError: A call failed possibly due to a …", True),
        (torch.distributed.DistBackendError, "NCCL error: invalid usage. Duplicate GPU detected", False),
        (torch.distributed.DistNetworkError, "Connection reset by peer", True),
        (torch.distributed.DistNetworkError, "The server socket has failed to listen: EADDRINUSE", False),
        (RuntimeError, "Distributed package doesn't have NCCL built in", False),
        (RuntimeError, GLOO, True),
        # the same words of a hub, a logger or a database
        (RuntimeError, "Connection reset by peer", False),
        (RuntimeError, "Error while downloading from https://hub/a: Connection reset by peer", False),
        (RuntimeError, "wandb: ncclRemoteError, says a user", False),
        (RuntimeError, "step 3 of DataLoader worker (pid 7) was slow", False),
    ],
)
def test_only_errors_of_a_process_group_are_a_lost_process(monkeypatch, kind, words, lost):
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    with pytest.raises(DistilPoseError if lost else kind) as error, translate_distributed_errors():
        raise kind(words)
    assert ("resume=auto" in str(error.value)) == lost
    assert isinstance(error.value, DistilPoseError) == lost
