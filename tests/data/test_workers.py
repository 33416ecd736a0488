"""Loading processes leave the signals that ask a training to leave to the training's process."""

from __future__ import annotations

import os
import signal
import time

import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from distilpose.data.workers import settle

pytestmark = pytest.mark.skipif(
    not hasattr(signal, "sigwaitinfo"), reason="this system does not tell a signal's sender"
)


class Processes(Dataset):
    def __len__(self):
        return 40

    def __getitem__(self, index):
        time.sleep(0.01)
        return torch.tensor(os.getpid())


def send(process: int, number: int) -> None:
    """A signal from a process that is not the loading process's parent, as torchrun or systemd would."""
    if (child := os.fork()) == 0:
        os.kill(process, number)
        os._exit(0)
    os.waitpid(child, 0)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGINT, signal.SIGHUP])
def test_a_signal_to_all_leaves_them_at_work(number):
    loader = DataLoader(Processes(), batch_size=1, num_workers=1, worker_init_fn=settle)
    batches = iter(loader)
    worker = int(next(batches))
    send(worker, number)
    assert [int(batch) for batch in batches] == [worker] * 39


def test_the_training_ends_one_that_does_not_end_itself():
    batches = iter(DataLoader(Processes(), batch_size=1, num_workers=1, worker_init_fn=settle))
    next(batches)
    (worker,) = batches._workers
    worker.terminate()  # this process is its parent
    worker.join(timeout=10)
    assert worker.exitcode == 0
    with pytest.raises(RuntimeError, match="DataLoader worker"):
        list(batches)
