"""Data-loading workers ignore shutdown signals, except SIGTERM from the training process."""

from __future__ import annotations

import os
import signal
import time

import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from distilpose.data.workers import init_worker

pytestmark = pytest.mark.skipif(
    not hasattr(signal, "sigwaitinfo"), reason="this system does not report a signal's sender"
)


class Processes(Dataset):
    def __len__(self):
        return 40

    def __getitem__(self, index):
        time.sleep(0.01)
        return torch.tensor(os.getpid())


def send(process: int, number: int) -> None:
    """Send a signal from a process that is not the worker's parent, like torchrun or systemd."""
    if (child := os.fork()) == 0:
        os.kill(process, number)
        os._exit(0)
    os.waitpid(child, 0)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGINT, signal.SIGHUP])
def test_a_signal_to_all_processes_is_ignored(number):
    loader = DataLoader(Processes(), batch_size=1, num_workers=1, worker_init_fn=init_worker)
    batches = iter(loader)
    worker = int(next(batches))
    send(worker, number)
    assert [int(batch) for batch in batches] == [worker] * 39


@pytest.mark.slow
def test_sigterm_of_the_training_process_ends_a_worker():
    batches = iter(DataLoader(Processes(), batch_size=1, num_workers=1, worker_init_fn=init_worker))
    next(batches)
    (worker,) = batches._workers
    worker.terminate()  # this process is its parent
    worker.join(timeout=10)
    assert worker.exitcode == 0
    with pytest.raises(RuntimeError, match="DataLoader worker"):
        list(batches)
